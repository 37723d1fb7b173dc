"""Transform files of ITK as text: `.tfm` and `.txt`.

The grammar is that of ITK's TxtTransformIO: lines of `Name: value` in the order Transform, Parameters,
FixedParameters; lines that are empty or begin with # say nothing. ITK takes what it cannot read for 0, and what is
missing for whatever stands in memory; here the file is refused.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import TransformError
from meddift.io.compressed import AGAIN
from meddift.io.itk_records import MOST_RECORDS, Record, require_some
from meddift.io.text_header import shortened
from meddift.system.memory import require_memory

_FIELDS = {"Parameters": "parameters", "FixedParameters": "fixed"}
_NAMES = tuple(_FIELDS)
_LONGEST_NUMBER = 60
_OF_NUMBERS = set("+-.0123456789eE \t")
_MOST_LINES = 100_000
_TOTAL = "#Number of transforms: "


def read_text_records(path: Path) -> list[Record]:
    """Read the transforms of a text file.

    Args:
        path: A file that exists.

    Raises:
        TransformError: if it is cut off, or something else stands in it.
    """
    require_memory(20 * path.stat().st_size, f"reading {path}")
    raw = path.read_bytes()
    if not raw:
        raise TransformError(f"{path} is empty (0 bytes). {AGAIN}")
    if b"\0" in raw:
        raise TransformError(f"{path} is not a text file, whatever its name says. {AGAIN}")
    lines = raw.removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True)
    return _records(lines, path)


def text_of(records: list[Record]) -> str:
    """The text file of transforms; how many there are stands in a comment, by which a cut-off file is known."""
    lines = ["#Insight Transform File V1.0", f"{_TOTAL}{len(records)}"]
    for number, record in enumerate(records):
        lines += [f"#Transform {number}", f"Transform: {record.name}"]
        if not record.is_composite:
            lines += [
                f"{name}: {_words(values)}"
                for name, values in (("Parameters", record.parameters), ("FixedParameters", record.fixed))
            ]
    return "\n".join(lines) + "\n"


def _words(values: NDArray[np.floating]) -> str:
    return " ".join(repr(value) for value in values.astype(np.float64).tolist())


def _records(lines: list[bytes], path: Path) -> list[Record]:
    found: list[Record] = []
    name: str | None = None
    numbers: dict[str, NDArray[np.float64]] = {}
    expected = 0
    if len(lines) > _MOST_LINES:
        raise TransformError(f"{path} has {len(lines)} lines, far more than transforms need. {AGAIN}")
    for count, line in enumerate(lines, start=1):
        text = line.strip().decode("ascii", errors="replace")
        if not text:
            continue
        where = f"{path}, line {count}"
        if not line.endswith((b"\n", b"\r")):
            raise TransformError(
                f"{where}: the last line does not end, so that its end may be cut off. {AGAIN} If you know that it "
                "is complete, add a line break."
            )
        if text.startswith("#"):
            expected = max(expected, _announced(text))
            continue
        key, mark, value = (part.strip() for part in text.partition(":"))
        if not mark or key not in ("Transform", *_NAMES):
            raise TransformError(f"{where}: {shortened(text)!r} does not belong into a transform file of ITK")
        if key == "Transform":
            _require_complete(name, numbers, where)
            name, numbers = value, {}
        elif name is None or key in numbers:
            raise TransformError(f"{where}: {key} stands where no transform waits for it")
        else:
            numbers[key] = _numbers(value, where)
        if name is not None and (len(numbers) == 2 or Record(name).is_composite):
            found.append(Record(name, **{_FIELDS[key]: values for key, values in numbers.items()}))
            name = None
        if len(found) > MOST_RECORDS:
            break
    _require_complete(name, numbers, f"{path}, at its end")
    if expected > len(found):
        raise TransformError(f"{path} is cut off: it announces {expected} transforms and holds {len(found)}. {AGAIN}")
    require_some(found, path)
    return found


def _announced(comment: str) -> int:
    """How many transforms a comment says that there are: ITK numbers them from 0, meddift writes how many."""
    number = re.fullmatch(r"#\s*Transform (\d{1,9})", comment)
    if number:
        return int(number[1]) + 1
    total = comment.removeprefix(_TOTAL)
    return int(total) if total.isdecimal() and len(total) < 10 else 0


def _require_complete(name: str | None, numbers: dict[str, NDArray[np.float64]], where: str) -> None:
    """Refuse a transform whose numbers are not all there."""
    if name is not None:
        missing = " and ".join(key for key in _NAMES if key not in numbers)
        raise TransformError(f"{where}: the transform {shortened(name)!r} has no {missing}; the file may be cut off")


def _numbers(text: str, where: str) -> NDArray[np.float64]:
    """Numbers with spaces between them."""
    words = text.split()
    try:
        # float() takes words that ITK does not: 1_000, nan, infinity.
        if not set(text) <= _OF_NUMBERS or max(map(len, words), default=0) > _LONGEST_NUMBER:
            raise ValueError
        return np.fromiter(map(float, words), dtype=np.float64, count=len(words))
    except ValueError:
        wrong = next((word for word in words if not _is_number(word)), text)
        raise TransformError(f"{where}: {shortened(wrong)!r} is not a number") from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return len(word) <= _LONGEST_NUMBER and set(word) <= _OF_NUMBERS
