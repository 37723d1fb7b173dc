"""The same patient by another kind of scanner: scans like MR from any scan, and pairs of them with exact truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError, NoCorrespondenceError
from meddift.geometry import Grid
from meddift.points import Points
from meddift.volume import Volume
from meddift_lab.synthetic.breathing import BreathingDeformation
from meddift_lab.synthetic.deformation import SmallRotation, TableShift, compose, triple
from meddift_lab.synthetic.degrade import change_thickness, crop_field_of_view
from meddift_lab.synthetic.local_warps import LocalWarps
from meddift_lab.synthetic.pairs import SyntheticPair
from meddift_lab.synthetic.warp import deform_volume

#: Signal of air, lung, fat, water, soft tissue in steps, contrast medium and bone: knots in HU, and the range of each.
_KNOTS_HU = (-1000.0, -700.0, -100.0, 0.0, 40.0, 70.0, 110.0, 200.0, 1500.0)
_LEAST = (0.0, 0.02, 0.5, 0.1, 0.25, 0.3, 0.35, 0.3, 0.0)
_GREATEST = (0.0, 0.1, 1.0, 0.9, 0.5, 0.6, 0.8, 1.0, 0.2)


def like_mr(volume: Volume, seed: int) -> Volume:
    """A CT with the signal of every tissue drawn anew, in 0 to 1000: fat bright, bone and air dark, the rest as drawn.

    Args:
        volume: CT in HU.
        seed: Equal seeds give equal signals.

    Returns:
        Volume of float32, without noise.
    """
    signal = np.random.default_rng([seed, 5]).uniform(_LEAST, _GREATEST)
    values = np.interp(volume.data.astype(np.float32), _KNOTS_HU, 1000 * signal)
    return Volume(values.astype(np.float32), volume.grid)


def rescan_mr(
    volume: Volume, generator: np.random.Generator, *, thickness_mm: float, noise: float, crop_mm: float
) -> Volume:
    """The scan by an MR scanner: thick slices, uneven sensitivity of the coils, Rician noise, another field of view.

    Args:
        volume: (X, Y, Z), signal of 0 and above.
        generator: Source of all that is drawn.
        thickness_mm: Of slices along head-feet.
        noise: Standard deviation in both channels, as a share of the 99th percentile of the signal.
        crop_mm: Cut off on every side a random amount up to this.

    Returns:
        Volume of uint16.
    """
    thick = change_thickness(volume, thickness_mm=thickness_mm)
    data = np.maximum(thick.data, 0)
    grid = thick.grid
    # A product of three slow waves, 0.6 to 1.6 at its ends.
    bias = np.ones(grid.shape)
    for axis in range(3):
        phase, strength = generator.uniform(0, 2 * np.pi), generator.uniform(0.05, 0.2)
        wave = np.exp(strength * np.cos(np.pi * np.arange(grid.shape[axis]) / grid.shape[axis] + phase))
        bias *= wave.reshape([-1 if a == axis else 1 for a in range(3)])
    signal = data * bias
    std = noise * float(np.percentile(signal[signal > 0], 99)) if (signal > 0).any() else noise
    real = signal + generator.normal(0, std, grid.shape)
    rician = np.hypot(real, generator.normal(0, std, grid.shape))
    scale = 1000 / max(float(np.percentile(rician, 99.9)), 1e-6)
    stored = Volume(np.clip(np.rint(rician * scale), 0, 65535).astype(np.uint16), grid)
    sides = generator.uniform(0, crop_mm, 6)
    names = ("left", "right", "posterior", "anterior", "inferior", "superior")
    return crop_field_of_view(stored, **{name: float(mm) for name, mm in zip(names, sides, strict=True)})


def mr_pair(
    fixed: Volume,
    moving: Volume,
    seed: int,
    *,
    breathing_mm: float = 0.0,
    shift_mm: float = 30.0,
    rotation_degrees: float = 8.0,
    local_mm: float = 3.0,
    thickness_mm: tuple[float, float] = (3.0, 3.0),
    noise: float = 0.02,
    crop_mm: float = 15.0,
    n_points: int = 60,
    name: str = "mr",
) -> SyntheticPair:
    """Two scans like MR of one patient, of equal or of different contrast, with every correspondence known.

    Args:
        fixed: Signal of the first scan.
        moving: Signal of the second one before the patient moved: the same world, any grid, any contrast.
        seed: Equal seeds and options give equal voxels.
        breathing_mm: Descent of the diaphragm, which is taken to lie a quarter below the top of the field of view.
        shift_mm: Length of the translation between the scans.
        rotation_degrees: Angle of the rotation.
        local_mm: Size of local changes.
        thickness_mm: Slices of the fixed and of the moving scan.
        noise: See `rescan_mr`.
        crop_mm: See `rescan_mr`; the fixed scan is not cropped.
        n_points: Number of points, anywhere inside the body.
        name: Of the pair.

    Raises:
        GeometryError: if the two scans do not overlap.
        NoCorrespondenceError: if no point lies in both fields of view.
    """
    if not fixed.grid.contains(moving.grid.center) and not moving.grid.contains(fixed.grid.center):
        raise GeometryError(f"the scans do not lie in the same world: {fixed.grid!r} and {moving.grid!r}")
    generator = np.random.default_rng([seed, 6])
    low, high = fixed.grid.corners.min(axis=0), fixed.grid.corners.max(axis=0)
    inset = (high - low) / 6
    direction, axis = generator.normal(size=(2, 3))
    shift = direction / np.linalg.norm(direction) * shift_mm
    turn = axis / np.linalg.norm(axis) * rotation_degrees
    parts = [
        LocalWarps.random(seed, low=low + inset, high=high - inset, amplitude_mm=local_mm, width_mm=30.0),
        SmallRotation(triple(turn), center=triple(fixed.grid.center)),
        TableShift(triple(shift)),
    ]
    if breathing_mm:
        top = high[2] - 0.25 * (high[2] - low[2])
        box_low, box_high = np.array([*(low + inset)[:2], top - 20]), np.array([*(high - inset)[:2], top + 180])
        parts.insert(0, BreathingDeformation(triple(box_low), triple(box_high), amplitude_mm=breathing_mm))
    transform = compose(*parts)
    affine = moving.grid.affine.copy()
    affine[:3, 3] += transform.apply(moving.grid.center) - moving.grid.center + generator.uniform(-8, 8, 3)
    deformed = deform_volume(moving, transform, Grid(moving.grid.shape, affine), fill=0.0)
    first = rescan_mr(fixed, generator, thickness_mm=thickness_mm[0], noise=noise, crop_mm=0.0)
    second = rescan_mr(deformed, generator, thickness_mm=thickness_mm[1], noise=noise, crop_mm=crop_mm)
    candidates = _inside(fixed, 4 * n_points, generator)
    truth = transform.apply(candidates)
    seen = first.grid.contains(candidates, margin_mm=2) & second.grid.contains(truth, margin_mm=2)
    rows = np.flatnonzero(seen)[:n_points]
    if len(rows) == 0:
        raise NoCorrespondenceError(f"{name}: no point of the body lies in both fields of view")
    labels = tuple(f"body-{i + 1}" for i in range(len(rows)))
    return SyntheticPair(
        first, second, transform, Points(candidates[rows], labels), Points(truth[rows], labels), f"{name}-{seed}", seed
    )


def _inside(volume: Volume, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Places drawn from where there is signal all around."""
    from scipy import ndimage

    signal = volume.data > 0.1 * np.percentile(volume.data, 99)
    size = 2 * np.ceil(6.0 / volume.grid.spacing).astype(int) + 1
    dense = ndimage.uniform_filter(signal.astype(np.float32), size, mode="constant") > 0.7
    voxels = np.argwhere(dense & signal)
    if len(voxels) == 0:
        raise NoCorrespondenceError("the scan shows no signal")
    drawn = voxels[generator.integers(len(voxels), size=count)]
    return volume.grid.index_to_world(drawn + generator.uniform(-0.5, 0.5, drawn.shape))
