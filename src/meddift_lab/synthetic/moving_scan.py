"""The moving scan of a synthetic pair: deformed anatomy on its own grid, with independent noise."""

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
    """Add new noise to a noise-free scan and store it as int16.

    Args:
        anatomy: (X, Y, Z), CT in HU without noise.
        level: Standard deviation of the noise, HU.
        generator: Source of randomness.

    Returns:
        Volume of int16 on the same grid.
    """
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
    """Deform a noise-free scan; the new grid is shifted with the patient, with a random offset of up to 10 mm.

    Args:
        volume: (X, Y, Z), CT in HU without noise.
        transform: Takes fixed points to moving points.
        generator: Source of the random offset of the grid.
        lungs: Mask in which density follows the change of volume, see `follow_volume`; None = nowhere.
        sliding: Sliding of the lungs, applied to points before `transform`; None = no sliding.

    Returns:
        Volume without noise on the grid of the moving scan.
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
    """Deform a noise-free scan with `moved_anatomy`, then simulate another scanner with `rescan`.

    Args:
        volume: (X, Y, Z), CT in HU without noise.
        transform: Takes fixed points to moving points.
        generator: Source of randomness.
        lungs: See `moved_anatomy`.
        sliding: See `moved_anatomy`.
        thickness_mm: See `rescan`.
        crop_mm: See `rescan`.
        noise_std_hu: See `rescan`.

    Returns:
        Volume of int16, HU.
    """
    return rescan(
        moved_anatomy(volume, transform, generator, lungs=lungs, sliding=sliding),
        seed=int(generator.integers(2**31)),
        noise_std_hu=noise_std_hu,
        thickness_mm=thickness_mm,
        crop_mm=crop_mm,
    )


def shown_grid(grid: Grid, fixed: Grid, transform: KnownComposite) -> Grid:
    """Drop the first and last slices that the deformed fixed scan does not fill.

    Otherwise the content of the moving scan would end at an oblique or curved surface, which no real scan does.
    Slices are judged in the inner two thirds of the field of view; at least half of them are kept.

    Args:
        grid: Grid of the moving scan.
        fixed: Grid of the fixed scan.
        transform: Takes fixed points to moving points.

    Returns:
        The grid without these slices.
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
