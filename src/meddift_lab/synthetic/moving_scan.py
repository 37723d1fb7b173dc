"""The moving scan of a drawn pair: anatomy deformed, scanned on a grid of its own, with noise of its own."""

from __future__ import annotations

import numpy as np

from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.synthetic.deformation import (
    KnownComposite,
)
from meddift_lab.synthetic.degrade import add_noise, as_stored, rescan
from meddift_lab.synthetic.density import follow_volume
from meddift_lab.synthetic.sliding import Sliding, deform_sliding
from meddift_lab.synthetic.warp import deform_volume


def renoised(anatomy: Volume, level: float, generator: np.random.Generator) -> Volume:
    """The scan with noise of its old level, as stored by a scanner."""
    width = max(1.5, 0.9 * float(anatomy.grid.spacing.mean()))
    noisy = add_noise(anatomy, generator, std_hu=level, correlation_mm=width)
    return Volume(as_stored(noisy.data), noisy.grid)


def moved_anatomy(
    volume: Volume,
    transform: KnownComposite,
    generator: np.random.Generator,
    *,
    lungs: Volume | None,
    sliding: Sliding | None = None,
) -> Volume:
    """A scan without noise as its patient looks later, on a grid that follows the patient to within a centimetre.

    Args:
        volume: CT in HU without noise.
        transform: What happens to the patient.
        generator: Decides where exactly the grid lies.
        lungs: Where density follows volume; None = nowhere.
        sliding: What lungs do before all else is deformed.
    """
    grid = volume.grid
    shift = transform.apply(grid.center) - grid.center
    affine = grid.affine.copy()
    affine[:3, 3] += shift + generator.uniform(-10, 10, 3)
    dense = volume if lungs is None else follow_volume(volume, transform, lungs=lungs)
    shown = shown_grid(Grid(grid.shape, affine), grid, transform)
    return (
        deform_volume(dense, transform, shown) if sliding is None else deform_sliding(dense, sliding, transform, shown)
    )


def moving_scan(
    volume: Volume,
    transform: KnownComposite,
    generator: np.random.Generator,
    *,
    lungs: Volume | None,
    sliding: Sliding | None,
    thickness_mm: float | None,
    crop_mm: float | None,
    noise_std_hu: float | None,
) -> Volume:
    """Deform and scan again."""
    return rescan(
        moved_anatomy(volume, transform, generator, lungs=lungs, sliding=sliding),
        seed=int(generator.integers(2**31)),
        noise_std_hu=noise_std_hu,
        thickness_mm=thickness_mm,
        crop_mm=crop_mm,
    )


def shown_grid(grid: Grid, fixed: Grid, transform: KnownComposite) -> Grid:
    """Leave out the first and last slices that the fixed scan does not fill: a scanner never cuts a body obliquely.

    Judged in the inner two thirds of the field of view; at least half of the slices stay.
    """
    axis = next(i for i, letter in enumerate(grid.orientation) if letter in "SI")
    coarse = grid.respaced([float(s) if a == axis else 12.0 for a, s in enumerate(grid.spacing)])
    inner = [slice(None) if a == axis else slice(n // 6, n - n // 6) for a, n in enumerate(coarse.shape)]
    centers = coarse.voxel_centers()[tuple(inner)]
    index = fixed.world_to_index(transform.inverse_apply(centers, tolerance_mm=0.1))[..., axis]
    filled = ((index > -0.5) & (index < fixed.shape[axis] - 0.5)).all(axis=tuple(a for a in range(3) if a != axis))
    rows = np.flatnonzero(filled)
    if len(rows) < grid.shape[axis] / 2:
        return grid
    start = [int(rows[0]) if a == axis else 0 for a in range(3)]
    return grid.cropped(start, [int(rows[-1]) + 1 - start[a] if a == axis else n for a, n in enumerate(grid.shape)])
