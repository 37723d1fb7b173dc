"""Reports are pages of HTML; whatever text files hold, it stays text in them."""

from __future__ import annotations

import sys

import pytest
from markupsafe import Markup

from meddift.system.pages import render_page


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "a_report").mkdir()
    (tmp_path / "a_report" / "__init__.py").write_text("")
    (tmp_path / "a_report" / "page.html.j2").write_text('<p title="{{ x }}">{{ x }}</p>{{ drawing }}{{ n | twice }}')
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "a_report"
    sys.modules.pop("a_report", None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>", "&lt;script&gt;"),
        ('"&', "&#34;&amp;"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("\u202egnp.scan", "\\u202egnp.scan"),
        ("name\udcff", "name\\udcff"),
        ("Läsion\nzwei", "Läsion\nzwei"),
    ],
)
def test_texts_are_escaped_and_drawings_are_not(package, text, shown):
    page = render_page(package, {"x": text, "drawing": Markup("<svg/>"), "n": 2}, filters={"twice": lambda n: 2 * n})
    assert page == f'<p title="{shown}">{shown}</p><svg/>4'
    page.encode("utf-8")
