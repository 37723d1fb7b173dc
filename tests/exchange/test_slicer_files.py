"""Files of 3D Slicer, and what Slicer does with a file of ours; made by Slicer's own code (see README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exchange_grids import NAMES

from meddift.geometry import AffineTransform, CompositeTransform, DisplacementField
from meddift.io import read_points, read_transform, write_transform

SLICER = Path(__file__).parent / "slicer"
WITHIN_MM = 0.01


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SLICER / "slicer.json").read_text())
    return found


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("linear.h5", AffineTransform),
        ("linear.tfm", AffineTransform),
        *((f"grid-{name}.h5", DisplacementField) for name in NAMES),
        ("composite.h5", CompositeTransform),
    ],
)
def test_transforms_of_slicer(file: str, kind: type, told: dict[str, Any], tmp_path: Path) -> None:
    case = told[file.split(".")[0]]
    found = read_transform(SLICER / file)
    assert isinstance(found, kind)
    assert np.abs(found.apply(case["points"]) - case["from_world"]).max() < WITHIN_MM
    write_transform(found, tmp_path / "again.h5")
    again = read_transform(tmp_path / "again.h5").apply(case["points"])
    assert np.abs(again - case["from_world"]).max() < WITHIN_MM


@pytest.mark.parametrize("file", ["points.mrk.json", "points.fcsv"])
def test_points_of_slicer(file: str, told: dict[str, Any]) -> None:
    case = told["points"]
    found = read_points(SLICER / file)
    assert list(found.labels) == case["labels"]
    assert (~found.missing).tolist() == case["defined"]
    there = np.array(case["defined"])
    assert np.abs(found.positions[there] - np.array(case["ras"])[there]).max() < 1e-3


class TestOursInSlicer:
    """`ours.h5` takes fixed points to moving points, and Slicer has read it as the node moving-to-fixed."""

    def test_slicer_reads_the_transform_that_was_written(self, told: dict[str, Any]) -> None:
        case = told["ours"]
        found = read_transform(SLICER / "ours.h5")
        assert np.abs(found.apply(case["points"]) - case["from_world"]).max() < WITHIN_MM

    def test_the_moving_image_under_it_lies_on_the_fixed_one(self, told: dict[str, Any]) -> None:
        """Bright where the first fixed point goes to; put under the node and hardened, bright at the fixed point."""
        case = told["ours"]
        image = case["moving_image"]
        fixed_point = np.array(case["points"][0])
        carried = read_transform(SLICER / "ours.h5").apply([fixed_point])[0]
        assert np.abs(carried - image["bright_at"]).max() < WITHIN_MM
        assert np.abs(np.array(image["bright_under_it_at"]) - fixed_point).max() < 0.1  # voxels of 2 mm
        assert np.linalg.norm(carried - fixed_point) > 5.0

    def test_fixed_points_under_it_go_the_wrong_way(self, told: dict[str, Any]) -> None:
        case = told["ours"]
        points, under = np.array(case["points"]), np.array(case["fixed_points_under_it"])
        right = read_transform(SLICER / "ours.h5")
        assert (np.linalg.norm(under - right.apply(points), axis=1) > 8.0).all()
        # It is the inverse: what the node makes of them goes back to them.
        assert np.abs(right.apply(under) - points).max() < 0.05

    def test_points_of_the_moving_scan_under_it_go_to_the_fixed_one(self, told: dict[str, Any]) -> None:
        case = told["ours"]
        assert np.abs(read_transform(SLICER / "ours.h5").apply(case["to_world"]) - case["points"]).max() < 0.05
