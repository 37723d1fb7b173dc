"""Point files of elastix and transformix, `.txt` or `.pts`, and the `outputpoints.txt` of transformix."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import PointsError
from meddift.io.points.content import (
    Frame,
    PointsFile,
    format_number,
    numbered_lines,
    parse_coordinates,
    points_file,
    shown,
)

FORMAT = "elastix points"
FORMAT_OUTPUT = "transformix output points"

_OUTPUT_POINT = re.compile(r"OutputPoint\s*=\s*\[([^\[\]]*)\]")
#: Digits of the greatest count that is believed.
_LONGEST_COUNT = 18


def recognises(text: str) -> bool:
    """Whether the text begins with `point`, `index`, or a line that holds a count and nothing else."""
    words = numbered_lines(text)[0][1].split()
    return words[0].lower() in {"point", "index"} or (len(words) == 1 and words[0].isdecimal())


def recognises_output(text: str) -> bool:
    """Whether this is what transformix writes for transformed points."""
    return bool(re.match(r"\s*Point\s+\d+\s*;", text))


def parse(text: str, path: Path) -> PointsFile:
    """Points after the keyword `point` (LPS mm) or `index` (voxels of the fixed image, from 0).

    A file without keyword is read as `index`, because that is what elastix does with it. elastix rounds
    indices to whole numbers, so a file with fractions means two things; it is refused.

    Raises:
        PointsError: if the count is not that of the rows, a row is not three numbers, or an index is not whole.
    """
    lines = numbered_lines(text)
    words = [(number, word) for number, line in lines[:2] for word in line.split()]
    named = words[0][1].lower() in {"point", "index"}
    keyword = words[0][1].lower() if named else "index"
    if len(words) <= int(named):
        raise PointsError(f"{path}, line {words[0][0]}: after {words[0][1]!r} comes the number of points")
    count_line, count = words[int(named)]
    if not (count.isascii() and count.isdecimal()) or len(count) > _LONGEST_COUNT:
        raise PointsError(f"{path}, line {count_line}: expected the number of points, got {shown(count)}")
    header = 1 if lines[0][0] == count_line else 2
    if len(words) > int(named) + 1 and words[int(named) + 1][0] == count_line:
        raise PointsError(f"{path}, line {count_line}: the number of points stands alone in its line")

    rows = []
    for number, line in lines[header:]:
        where = f"{path}, line {number}"
        rows.append(parse_coordinates(line.split(), where))
        if keyword == "index" and any(value != round(value) for value in rows[-1] if value == value):
            raise PointsError(
                f"{where}: elastix rounds voxel indices to whole numbers, got {shown(line.strip())}. Give mm after "
                f"the keyword 'point', or delete the header lines and name the frame with --points-space voxel"
            )
    if len(rows) != int(count):
        raise PointsError(f"{path} announces {count} points in line {count_line} but holds {len(rows)}")
    frame: Frame = "lps" if keyword == "point" else "voxel"
    return points_file(f"{FORMAT} ({keyword})", frame, rows, path=path)


def parse_output(text: str, path: Path) -> PointsFile:
    """`OutputPoint` of every line (LPS mm): where the points lie in the *moving* image.

    Raises:
        PointsError: if a line has no `OutputPoint` or it is not three numbers.
    """
    rows = []
    for number, line in numbered_lines(text):
        where = f"{path}, line {number}"
        found = _OUTPUT_POINT.search(line)
        if not found:
            raise PointsError(f"{where}: no 'OutputPoint = [ x y z ]'")
        rows.append(parse_coordinates(found.group(1).split(), where))
    return points_file(FORMAT_OUTPUT, "lps", rows, path=path)


def write(coordinates: NDArray[np.float64]) -> str:
    """The text of a `point` file.

    Args:
        coordinates: (N, 3) float64, LPS mm, none missing.
    """
    lines = [" ".join(format_number(value) for value in position) for position in coordinates]
    return "\n".join(["point", str(len(lines)), *lines]) + "\n"
