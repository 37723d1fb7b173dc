"""Three columns of numbers and nothing else: Learn2Reg `.csv`, DIR-Lab `.txt`. They do not say their frame."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import PointsError
from meddift.io.points.content import (
    PointsFile,
    format_number,
    has_decimal_comma,
    is_number,
    numbered_lines,
    parse_coordinates,
    points_file,
    rows_in_use,
)

FORMAT = "three columns without header"


def recognises(text: str) -> bool:
    """Whether the first line that is no comment consists of numbers only, whatever their decimals look like."""
    lines = (line for _, line in numbered_lines(text) if not line.lstrip().startswith("#"))
    first = next((line for line in lines if line.strip(", \t")), "")
    return any(tokens and all(map(_is_numeric, tokens)) for tokens in (_split(first), re.split(r"[;\s]+", first)))


def parse(text: str, path: Path) -> PointsFile:
    """One point a line, separated by commas or white space; lines that begin with # are comments.

    A row of commas only, as spreadsheet programs write a blank one, is a point without position.

    Raises:
        PointsError: if a line does not hold three numbers.
    """
    rows: list[tuple[float, float, float]] = []
    blank: list[bool] = []
    for number, line in numbered_lines(text):
        if line.lstrip().startswith("#"):
            continue
        where = f"{path}, line {number}"
        tokens = _split(line)
        if len(tokens) != 3 and not (len(tokens) > 3 and not any(tokens[3:])):
            hint = "; write decimals with a point, not a comma" if len(tokens) == 6 or ";" in line else ""
            raise PointsError(
                f"{where}: {len(tokens)} columns; without a header there must be exactly 3 (x y z){hint}"
            )
        blank.append(not any(tokens))
        rows.append((math.nan, math.nan, math.nan) if blank[-1] else parse_coordinates(tokens[:3], where))
    return points_file(FORMAT, None, rows[: rows_in_use(blank)], path=path)


def write_learn2reg(coordinates: NDArray[np.float64]) -> str:
    """The text of a Learn2Reg keypoints file: `x,y,z` in voxels counted from 0; missing points are nan.

    Args:
        coordinates: (N, 3) float64, continuous voxel indices as nibabel counts them.
    """
    return "".join(",".join(format_number(value) for value in position) + "\n" for position in coordinates)


def write_dirlab(coordinates: NDArray[np.float64]) -> str:
    """The text of a DIR-Lab file: whole voxel indices counted from 1. Up to half a voxel is lost by rounding.

    Args:
        coordinates: (N, 3) float64, continuous voxel indices counted from 1, none missing.
    """
    # floor(x + 0.5): numpy.rint would send 2.5 and 3.5 to even neighbours, one down and one up.
    whole = np.floor(coordinates + 0.5).astype(np.int64)
    return "".join("\t".join(str(int(value)) for value in position) + "\n" for position in whole)


def _split(line: str) -> list[str]:
    """Tokens of a line: by commas if there are any, else by white space; with decimal commas, by white space."""
    words = line.split()
    if "," not in line or (len(words) > 1 and all(map(_is_numeric, words))):
        return words
    return [token.strip() for token in line.split(",")]


def _is_numeric(token: str) -> bool:
    return is_number(token) or has_decimal_comma(token)
