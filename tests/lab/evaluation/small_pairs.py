"""Small pairs of scans on disk, for runs that take a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from meddift.geometry import Grid
from meddift.io import write_points, write_volume
from meddift.points import Points
from meddift.volume import Volume


def small_scan(seed: int, shape: tuple[int, int, int] = (20, 18, 16)) -> Volume:
    """A blob of tissue with texture in air; oblique and left-handed."""
    angle = 0.2
    affine = np.eye(4)
    affine[:3, :3] = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    ) @ np.diag([-3.0, 3.0, 4.0])
    affine[:3, 3] = [140.0, -120.0, 7.0]
    generator = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    inside = (place**2).sum(axis=0) < 0.8
    texture = ndimage.gaussian_filter(generator.normal(size=shape), 1.5) * 400
    return Volume(np.where(inside, 40 + texture, -1000).astype(np.int16), Grid(shape, affine))


def write_pairs(folder: Path, count: int) -> Path:
    """`count` pairs that differ by a shift of the grid, with eight points each; returns pairs.csv."""
    lines = ["id,fixed,moving,fixed_points,moving_points,truth"]
    for number in range(count):
        fixed = small_scan(number)
        shift = np.array([4.0, -2.0, 6.0]) * (number + 1)
        affine = fixed.grid.affine.copy()
        affine[:3, 3] += shift
        moving = Volume(fixed.data, Grid(fixed.grid.shape, affine))
        index = np.random.default_rng(number).uniform(4, [15, 13, 11], (8, 3))
        points = Points(fixed.grid.index_to_world(index))
        write_volume(fixed, folder / f"fixed-{number}.nii.gz")
        write_volume(moving, folder / f"moving-{number}.nii.gz")
        write_points(points, folder / f"fixed-{number}.mrk.json")
        # One mm beside its true place, so that no method is perfect.
        write_points(Points(points.positions + shift + [1.0, 0, 0]), folder / f"moving-{number}.mrk.json")
        names = [f"{side}-{number}{suffix}" for suffix in (".nii.gz", ".mrk.json") for side in ("fixed", "moving")]
        lines.append(",".join([f"case-{number}", *names, "moved along with the grid"]))
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.csv"
