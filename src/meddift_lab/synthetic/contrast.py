"""MR-like scans simulated from CT, and pairs of MR or MR-like scans with exactly known correspondences."""

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

#: Piecewise linear map from HU to signal: knots in HU for air, lung, fat, water, soft tissue, contrast medium and
#: bone, and the least and greatest relative signal that may be drawn at each knot.
_KNOTS_HU = (-1000.0, -700.0, -100.0, 0.0, 40.0, 70.0, 110.0, 200.0, 1500.0)
_LEAST = (0.0, 0.02, 0.5, 0.1, 0.25, 0.3, 0.35, 0.3, 0.0)
_GREATEST = (0.0, 0.1, 1.0, 0.9, 0.5, 0.6, 0.8, 1.0, 0.2)


def like_mr(volume: Volume, seed: int) -> Volume:
    """Replace the HU of a CT by a random MR-like signal for each tissue, in 0 to 1000.

    Fat is bright, bone and air are dark, and the order of the other tissues is random.

    Args:
        volume: (X, Y, Z), CT in HU.
        seed: Equal seeds give equal signals.

    Returns:
        Volume of float32 on the same grid; no noise is added.
    """
    signal = np.random.default_rng([seed, 5]).uniform(_LEAST, _GREATEST)
    values = np.interp(volume.data.astype(np.float32), _KNOTS_HU, 1000 * signal)
    return Volume(values.astype(np.float32), volume.grid)


def rescan_mr(
    volume: Volume, generator: np.random.Generator, *, thickness_mm: float, noise: float, crop_mm: float
) -> Volume:
    """Simulate an MR acquisition: thick slices, a coil sensitivity bias, Rician noise and a cropped field of view.

    Args:
        volume: (X, Y, Z), non-negative signal.
        generator: Source of randomness.
        thickness_mm: Slice thickness along the head-feet axis.
        noise: Standard deviation in the real and imaginary channels, as a fraction of the 99th percentile of the
            signal.
        crop_mm: Largest random amount that is cropped on each side.

    Returns:
        Volume of uint16 on the new grid.
    """
    thick = change_thickness(volume, thickness_mm=thickness_mm)
    data = np.maximum(thick.data, 0)
    grid = thick.grid
    # The bias is the exponential of a sum of three half cosine waves, one along each axis.
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
    """Make a pair of MR or MR-like scans of one patient, of equal or different contrast, with known correspondences.

    Args:
        fixed: (X, Y, Z), signal of the fixed scan before noise.
        moving: (X, Y, Z), signal of the moving scan before deformation: in the world frame of `fixed`, on any grid
            and with any contrast.
        seed: Equal seeds and options give equal voxels.
        breathing_mm: Descent of the diaphragm, which is taken to lie a quarter of the field of view below its top.
        shift_mm: Length of the translation between the scans.
        rotation_degrees: Angle of the rotation about the centre of the fixed scan.
        local_mm: Largest displacement of each local bump, see `LocalWarps.random`.
        thickness_mm: Slice thickness of the fixed and of the moving scan.
        noise: See `rescan_mr`.
        crop_mm: See `rescan_mr`; the fixed scan is not cropped.
        n_points: Number of points, anywhere inside the body.
        name: Name of the pair; the seed is appended.

    Returns:
        SyntheticPair whose points all lie in both fields of view.

    Raises:
        GeometryError: if the centre of neither scan lies inside the other.
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
    """`count` random points, (count, 3) world RAS mm, from voxels that are mostly surrounded by signal."""
    from scipy import ndimage

    signal = volume.data > 0.1 * np.percentile(volume.data, 99)
    size = 2 * np.ceil(6.0 / volume.grid.spacing).astype(int) + 1
    dense = ndimage.uniform_filter(signal.astype(np.float32), size, mode="constant") > 0.7
    voxels = np.argwhere(dense & signal)
    if len(voxels) == 0:
        raise NoCorrespondenceError("the scan shows no signal")
    drawn = voxels[generator.integers(len(voxels), size=count)]
    return volume.grid.index_to_world(drawn + generator.uniform(-0.5, 0.5, drawn.shape))
