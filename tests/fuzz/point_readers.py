"""Readers of landmarks, called by the harness."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from meddift.geometry import Grid
from meddift.io.points import describe_points, parse_points_file, read_points, write_points

GRID = Grid((40, 40, 40), np.diag([1.5, 1.5, 2.0, 1.0]))


def landmarks(path: Path) -> None:
    """Read and, where it is of ordinary size, describe and write back in formats that hold everything."""
    content = parse_points_file(path)
    if len(content.labels) > 2_000:
        return  # what is measured is the time to read it once
    frame = content.frame or "ras"
    points = read_points(path, space=frame, grid=GRID)
    describe_points(path, space=frame, grid=GRID)
    write_points(points, path.with_name("again.mrk.json"))
    write_points(points, path.with_name("again.csv"))
    np.testing.assert_allclose(read_points(path.with_name("again.csv")).positions, points.positions, atol=1e-6)
