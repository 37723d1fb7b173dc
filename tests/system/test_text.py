"""Nothing that a terminal obeys gets through; everything that people read does."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from meddift.system.text import one_line, printable, printable_json


def test_what_people_read_stays_as_it_is() -> None:
    for text in ("Thorax nativ für Ärzte", "胸部 CT", "Грудь", "می‌خواهم", "a\tb\nc", "3 µm ± 2°", ""):
        assert printable(text) == text
        assert printable_json(text) == text


def test_what_a_terminal_obeys_is_written_as_an_escape() -> None:
    for raw, shown in [
        ("\x1b[2J", r"\x1b[2J"), ("\x9b31m", r"\x9b31m"), ("a\rb", r"a\rb"), ("\x07\x00\x7f", r"\x07\x00\x7f"),
        ("abc\u202egnp.exe", r"abc\u202egnp.exe"), ("name\udcff", r"name\udcff"), ("a\u2028b", r"a\u2028b"),
        ("\U000e0041", r"\U000e0041"),
    ]:  # fmt: skip
        assert printable(raw) == shown
        assert printable(printable(raw)) == shown


def test_a_value_stays_in_its_line() -> None:
    assert one_line("a\nb\tc\x1b") == r"a\nb c\x1b"


@given(st.text(st.characters(), max_size=40))
def test_any_text(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(letter) for letter in shown} & {"Cs", "Co", "Cn", "Zl", "Zp"}
    assert not {letter for letter in shown if ord(letter) < 32 or 127 <= ord(letter) < 160} - {"\n", "\t"}
    shown.encode("utf-8")  # no half of a surrogate pair is left
    told = printable_json(json.dumps([text], ensure_ascii=False))
    assert json.loads(told.encode("utf-8")) == json.loads(json.dumps([text]))
    assert not {letter for letter in told if ord(letter) < 32 or 127 <= ord(letter) < 160}
