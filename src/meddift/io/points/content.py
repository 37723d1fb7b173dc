"""What a points file holds, and the strict reading of its text and numbers that all formats share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from meddift.errors import MeddiftError, MissingFileError, PointsError
from meddift.io.itk_linear import LARGEST
from meddift.io.text_header import shortened

#: Frames in which a file may hold coordinates: world mm (RAS or LPS), voxel indices counted from 0 or from 1.
Frame = Literal["ras", "lps", "voxel", "voxel1"]

#: A decimal number in ASCII. Python's `float` would also take "1_000", other scripts' digits and "infinity".
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
#: More characters than any program writes for a number.
_LONGEST_NUMBER = 400

#: A number that a spreadsheet program of most of Europe has written.
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")

_FLAGS = {"1": True, "true": True, "yes": True, "": True, "0": False, "false": False, "no": False}

#: A text file of landmarks is small; anything beyond this is an image or an archive by mistake.
_LARGEST_FILE_BYTES = 256 * 1024**2


@dataclass(frozen=True, eq=False)
class PointsFile:
    """A points file as it stands on disk, before anything is converted.

    Attributes:
        format: The name of the format in words.
        frame: The frame that the file says its coordinates are in; None where it does not say.
        coordinates: (N, 3) float64 in that frame, mm or voxel indices; a row of NaN is a missing point.
        labels: N strings.
        extra: Further columns by name, N strings each.
    """

    format: str
    frame: Frame | None
    coordinates: NDArray[np.float64]
    labels: tuple[str, ...]
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def points_file(
    form: str,
    frame: Frame | None,
    rows: Sequence[Sequence[float]],
    *,
    labels: Sequence[str] | None = None,
    extra: Mapping[str, Sequence[str]] | None = None,
    path: Path,
) -> PointsFile:
    """Bundle parsed rows; where the file has no labels they are numbered "1", "2", ...

    Raises:
        PointsError: if there is not a single point.
    """
    if not rows:
        raise PointsError(f"{path} ({form}) holds no points")
    names = tuple(labels) if labels is not None else tuple(str(i + 1) for i in range(len(rows)))
    columns = {name: tuple(values) for name, values in (extra or {}).items()}
    return PointsFile(form, frame, np.array(rows, dtype=np.float64).reshape(-1, 3), names, columns)


def rows_in_use(blank: Sequence[bool]) -> int:
    """How many rows to keep of which some are blank: spreadsheet programs leave blank ones below a table.

    Those in between stay; each is a point without position, so that the number of a row is that of its point.
    """
    count = len(blank)
    while count and blank[count - 1]:
        count -= 1
    return count


def read_text(path: Path) -> str:
    """The text of a file: UTF-8 with or without byte order mark, else Latin-1; line ends are left as they are.

    Raises:
        MissingFileError: if there is no such file.
        PointsError: if it cannot be read, is empty, or is not text.
    """
    try:
        if not path.exists():
            raise MissingFileError(f"there is no points file {path}")
        if not path.is_file():
            raise PointsError(f"{path} is not a file; give a points file such as landmarks.mrk.json or landmarks.csv")
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise PointsError(f"{path} is larger than 256 MiB, which no points file is; was an image meant?")
        content = path.read_bytes()
    except MeddiftError:
        raise
    except OSError as error:
        name = shortened(str(path))
        raise PointsError(f"cannot read the points file {name}: {error.strerror or error}") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PointsError(f"{path} is UTF-16 text; save it as UTF-8")
    if b"\x00" in content:
        raise PointsError(f"{path} is not a text file; a points file is .mrk.json, .fcsv, .csv, .txt or .pts")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Older tools write labels in Latin-1. Every byte has a meaning there, and numbers are the same in both.
        text = content.decode("latin-1")
    if not text.strip():
        raise PointsError(f"{path} is empty; it holds no points")
    return text


def numbered_lines(text: str) -> list[tuple[int, str]]:
    """Lines that are not blank, each with its number counted from 1.

    Only line feed and carriage return end a line: a label may hold any other character that
    `str.splitlines` would break at.
    """
    lines = re.split(r"\r\n|\n|\r", text)
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def is_number(token: str) -> bool:
    """Whether a token is a decimal number or `nan`."""
    token = token.strip()
    return len(token) <= _LONGEST_NUMBER and (bool(_NUMBER.fullmatch(token)) or token.lower() == "nan")


def has_decimal_comma(token: str) -> bool:
    """Whether a token is a number with a comma in the place of the decimal point."""
    return len(token) <= _LONGEST_NUMBER and bool(_DECIMAL_COMMA.fullmatch(token.strip()))


def shown(text: object, most: int = 60) -> str:
    """Something from a file as it stands in a message: quoted, and cut where it is long."""
    written = repr(text)
    return written if len(written) <= most + 2 else f"{written[:most]}...{written[-1]}"


def is_flag(token: str) -> bool:
    """Whether a token is one of the words for yes and no that programs write."""
    return token.strip().lower() in _FLAGS


def is_set(token: str, where: str, name: str) -> bool:
    """The meaning of 1, 0, true, false, yes or no in any case; nothing at all means yes.

    Raises:
        PointsError: for any other word.
    """
    word = token.strip().lower()
    if word not in _FLAGS:
        raise PointsError(f"{where}: {name} is 1 or 0, true or false, got {shown(token)}")
    return _FLAGS[word]


def parse_coordinates(tokens: Sequence[str], where: str) -> tuple[float, float, float]:
    """Three tokens as one position; `nan nan nan` is a missing point.

    Args:
        tokens: The three coordinates as they stand in the file.
        where: File and line, for the message.

    Raises:
        PointsError: if there are not three, one is not a finite number, or only some are NaN.
    """
    if len(tokens) != 3:
        raise PointsError(f"{where}: a point has 3 coordinates, got {len(tokens)}")
    values = []
    for token in (t.strip() for t in tokens):
        if not is_number(token):
            hint = "; write decimals with a point, not a comma" if has_decimal_comma(token) else ""
            raise PointsError(f"{where}: {shown(token)} is not a finite number{hint}")
        values.append(float(token))
    return checked_position(values, where)


def checked_position(values: Sequence[float], where: str) -> tuple[float, float, float]:
    """Three numbers as one position.

    Raises:
        PointsError: if one is infinite or far beyond any scan, or only some are NaN.
    """
    x, y, z = (float(value) for value in values)
    if any(abs(value) > LARGEST for value in (x, y, z)):
        raise PointsError(f"{where}: the coordinates ({x:g}, {y:g}, {z:g}) are not finite, or no place in a scan")
    if 0 < sum(math.isnan(value) for value in (x, y, z)) < 3:
        raise PointsError(f"{where}: only some coordinates of the point are there: ({x}, {y}, {z})")
    return x, y, z


def rounded(value: float) -> float:
    """A coordinate to 1e-9: far below any accuracy, and without digits such as in 0.30000000000000004."""
    return round(float(value), 9) + 0.0  # + 0.0 turns -0.0 into 0.0


def format_number(value: float, *, missing: str = "nan") -> str:
    """A coordinate as text with up to 9 decimals, a point as separator whatever the locale.

    Args:
        value: The number; NaN is written as `missing`.
        missing: The word for NaN.
    """
    if math.isnan(value):
        return missing
    text = f"{rounded(value):.9f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def format_value(value: Any) -> str:
    """The text of an extra value: numbers with all their digits, None and NaN as nothing."""
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else repr(float(value))
    return str(value)


def quote_csv(text: str) -> str:
    """A field of comma-separated values, quoted where another reader could take it for something else."""
    if text and (any(mark in text for mark in ',;"\r\n\t') or text != text.strip() or text.startswith("#")):
        return '"' + text.replace('"', '""') + '"'
    return text
