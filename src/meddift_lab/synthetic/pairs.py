"""Synthetic pairs of scans with known correspondences, from a drawn phantom or from a real scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.body import body_mask, lung_mask
from meddift.errors import NoCorrespondenceError
from meddift.points import Points
from meddift.volume import Volume
from meddift_lab.synthetic.breathing import BreathingDeformation
from meddift_lab.synthetic.deformation import (
    KnownComposite,
    KnownTransform,
    SmallRotation,
    TableShift,
    compose,
    triple,
)
from meddift_lab.synthetic.degrade import rescan
from meddift_lab.synthetic.interest import pick_points
from meddift_lab.synthetic.local_warps import LocalWarps
from meddift_lab.synthetic.moving_scan import moving_scan, renoised
from meddift_lab.synthetic.noise import noise_level, remove_noise
from meddift_lab.synthetic.phantom import chest_phantom
from meddift_lab.synthetic.sliding import Sliding, SurfaceFlow


@dataclass(frozen=True, eq=False)
class SyntheticPair:
    """Two scans and the exact transform between them.

    Attributes:
        fixed: The scan in which the points are given.
        moving: The scan in which their counterparts are to be found.
        transform: The exact transform from fixed to moving points.
        points: Points on the fixed scan, world RAS mm.
        truth: Their true counterparts on the moving scan, with the same labels, world RAS mm.
        name: Name for reports and file names.
        seed: Seed from which the pair was made.
    """

    fixed: Volume
    moving: Volume
    transform: KnownTransform
    points: Points
    truth: Points
    name: str
    seed: int

    @property
    def in_view(self) -> NDArray[np.bool_]:
        """(N,) bool, whether each point has its counterpart inside the field of view of the moving scan."""
        return self.moving.grid.contains(self.truth.positions)

    @property
    def initial_error_mm(self) -> float:
        """Mean distance between the points and their true counterparts in world coordinates, mm."""
        return float(np.linalg.norm(self.truth.positions - self.points.positions, axis=1).mean())


def random_transform(
    seed: int,
    *,
    lung_low: tuple[float, float, float],
    lung_high: tuple[float, float, float],
    amplitude_mm: float = 30.0,
    table_shift_mm: float = 35.0,
    rotation_degrees: float = 3.0,
    local_mm: float = 5.0,
) -> KnownComposite:
    """A random transform between two scans: breathing, local deformation, and a new position on the table.

    Args:
        seed: Decides directions and positions; equal seeds give equal transforms.
        lung_low: (3,) least corner of the box around the lungs, fixed world RAS mm.
        lung_high: (3,) greatest corner, fixed world RAS mm.
        amplitude_mm: Descent of the diaphragm.
        table_shift_mm: Length of the translation; a large part of it is along S.
        rotation_degrees: Angle of the rotation about the centre of the lung box.
        local_mm: Largest displacement of each of eight local bumps.
    """
    generator = np.random.default_rng([seed, 0])
    low, high = np.asarray(lung_low), np.asarray(lung_high)
    direction = generator.normal(size=3) * [1.0, 0.5, 2.0]
    direction /= np.linalg.norm(direction)
    # The position on the table differs most along the patient.
    direction[2] = np.copysign(max(abs(direction[2]), 0.5), direction[2])
    shift = direction / np.linalg.norm(direction) * table_shift_mm
    axis = generator.normal(size=3)
    turn = axis / np.linalg.norm(axis) * rotation_degrees
    middle = (low + high) / 2
    return compose(
        BreathingDeformation(lung_low, lung_high, amplitude_mm=amplitude_mm),
        LocalWarps.random(seed, low=low, high=high, amplitude_mm=local_mm),
        SmallRotation(triple(turn), center=triple(middle)),
        TableShift(triple(shift)),
    )


def phantom_pair(
    seed: int,
    *,
    amplitude_mm: float = 30.0,
    table_shift_mm: float = 35.0,
    rotation_degrees: float = 3.0,
    local_mm: float = 5.0,
    n_points: int = 50,
    spacing_mm: float = 2.0,
    thickness_mm: float | None = None,
    crop_mm: float | None = None,
    noise_std_hu: float | None = None,
    lesions: int = 3,
    preserve_mass: bool = True,
    sliding_mm: float = 0.0,
) -> SyntheticPair:
    """A drawn chest, and the same chest after breathing and repositioning on another scanner.

    Points are the centres of the lesions, followed by bifurcations of vessels and airways in random order.

    Args:
        seed: Equal seeds and options give equal voxels.
        amplitude_mm: Descent of the diaphragm between the scans.
        table_shift_mm: Length of the translation between the scans.
        rotation_degrees: Angle of the rotation between the scans.
        local_mm: Largest displacement of each local bump.
        n_points: Number of points, lesions included; fewer if the phantom has fewer.
        spacing_mm: Voxel size of the drawing.
        thickness_mm: Slice thickness of the moving scan; `None` draws 1 to 5 mm.
        crop_mm: Field of view lost on each side of the moving scan, at most; `None` draws up to 25 mm.
        noise_std_hu: Noise of the moving scan; `None` draws 8 to 30 HU.
        lesions: Number of nodules.
        preserve_mass: Whether lung density follows the change of volume, see `follow_volume`.
        sliding_mm: Largest sliding of the lungs along the chest wall, see `Sliding`; 0 = no sliding.

    Returns:
        SyntheticPair whose points all lie in both fields of view.
    """
    phantom = chest_phantom(seed, spacing_mm=spacing_mm, lesions=lesions, noise_std_hu=0, table=False)
    transform = random_transform(
        seed,
        lung_low=phantom.lung_low,
        lung_high=phantom.lung_high,
        amplitude_mm=amplitude_mm,
        table_shift_mm=table_shift_mm,
        rotation_degrees=rotation_degrees,
        local_mm=local_mm,
    )
    generator = np.random.default_rng([seed, 1])
    fixed = rescan(
        phantom.volume,
        seed=seed,
        noise_std_hu=16.0,
        kernel=0.0,
        thickness_mm=spacing_mm,
        crop_mm=0.0,
        calibration_std_hu=0.0,
        boost_hu=0.0,
    )
    left, right = phantom.structures["left lung"], phantom.structures["right lung"]
    lungs = Volume(left.data | right.data, left.grid)
    sliding = Sliding(SurfaceFlow(lungs, amplitude_mm=sliding_mm)) if sliding_mm else None
    moving = moving_scan(
        phantom.volume,
        transform,
        generator,
        lungs=lungs if preserve_mass else None,
        sliding=sliding,
        thickness_mm=thickness_mm,
        crop_mm=crop_mm,
        noise_std_hu=noise_std_hu,
    )
    order = generator.permutation(len(phantom.branches))
    candidates = Points(
        np.concatenate([phantom.lesions.positions, phantom.branches.positions[order]]),
        phantom.lesions.labels + tuple(phantom.branches.labels[i] for i in order),
    )
    whole = transform if sliding is None else compose(sliding, transform)
    return _assembled(fixed, moving, whole, candidates, n_points, name=f"phantom-{seed}", seed=seed)


def scan_pair(
    volume: Volume,
    seed: int,
    *,
    amplitude_mm: float = 30.0,
    table_shift_mm: float = 35.0,
    rotation_degrees: float = 3.0,
    local_mm: float = 5.0,
    n_points: int = 50,
    kind: str = "vessels",
    thickness_mm: float | None = None,
    crop_mm: float | None = None,
    noise_std_hu: float | None = None,
    preserve_mass: bool = True,
    sliding_mm: float = 0.0,
    name: str = "scan",
) -> SyntheticPair:
    """A real scan, and a simulated later scan of the same patient in another position on another scanner.

    The noise of the scan is removed first (`remove_noise`), so that it is not deformed along with the anatomy. Then
    independent noise is added to both: to `fixed` as much as the scan had, to `moving` as `noise_std_hu` says. Faint
    texture that the filter cannot distinguish from noise is lost in both. Lung density follows the change of volume
    (`follow_volume`). Outside the field of view of the fixed scan the moving scan shows air.

    Args:
        volume: CT in HU; `fixed` is this scan on the same grid with its noise renewed, int16.
        seed: Equal seeds and options give equal voxels.
        amplitude_mm: Descent of the diaphragm between the scans.
        table_shift_mm: Length of the translation between the scans.
        rotation_degrees: Angle of the rotation between the scans.
        local_mm: Largest displacement of each local bump.
        n_points: Number of points; fewer if fewer lie in both fields of view.
        kind: Kind of points, see `pick_points`. Scans without lungs need `"body"` or `"lattice"`.
        thickness_mm: Slice thickness of the moving scan; `None` draws 1 to 5 mm.
        crop_mm: Field of view lost on each side of the moving scan, at most; `None` draws up to 25 mm.
        noise_std_hu: Noise of the moving scan; `None` draws 8 to 30 HU.
        preserve_mass: Whether lung density follows the change of volume, see `follow_volume`.
        sliding_mm: Largest sliding of the lungs along the chest wall, see `Sliding`; 0 = no sliding.
        name: Name of the pair; the seed is appended.

    Returns:
        SyntheticPair whose points all lie in both fields of view.

    Raises:
        NoCorrespondenceError: if no point of this kind lies in both fields of view.
    """
    body = body_mask(volume)
    lungs = lung_mask(volume, body=body)
    if lungs.data.any():
        world = volume.grid.index_to_world(np.argwhere(lungs.data))
        low, high = triple(np.percentile(world, 0.5, axis=0)), triple(np.percentile(world, 99.5, axis=0))
    else:
        breathing = BreathingDeformation.for_grid(volume.grid, amplitude_mm=0.0)
        low, high = breathing.lung_low, breathing.lung_high
    transform = random_transform(
        seed,
        lung_low=low,
        lung_high=high,
        amplitude_mm=amplitude_mm,
        table_shift_mm=table_shift_mm,
        rotation_degrees=rotation_degrees,
        local_mm=local_mm,
    )
    generator = np.random.default_rng([seed, 1])
    level = noise_level(volume, body=body)
    anatomy = remove_noise(volume, std_hu=level)
    fixed = renoised(anatomy, level, np.random.default_rng([seed, 2]))
    sliding = Sliding(SurfaceFlow(lungs, amplitude_mm=sliding_mm)) if sliding_mm else None
    moving = moving_scan(
        anatomy,
        transform,
        generator,
        lungs=lungs if preserve_mass else None,
        sliding=sliding,
        thickness_mm=thickness_mm,
        crop_mm=crop_mm,
        noise_std_hu=noise_std_hu,
    )
    # Some candidates lie outside the moving field of view: pick more than needed, best first.
    candidates = pick_points(anatomy, 2 * n_points, kind=kind, seed=seed)
    if kind != "vessels":
        candidates = candidates.subset(generator.permutation(len(candidates)))
    whole = transform if sliding is None else compose(sliding, transform)
    return _assembled(fixed, moving, whole, candidates, n_points, name=f"{name}-{seed}", seed=seed)


def _assembled(
    fixed: Volume,
    moving: Volume,
    transform: KnownComposite,
    candidates: Points,
    n_points: int,
    *,
    name: str,
    seed: int,
) -> SyntheticPair:
    """Make the pair; keep the first candidates that lie in both fields of view, at least 2 mm from their borders."""
    truth = transform.apply(candidates.positions)
    visible = fixed.grid.contains(candidates.positions, margin_mm=2) & moving.grid.contains(truth, margin_mm=2)
    rows = np.flatnonzero(visible)[:n_points]
    if len(rows) == 0:
        raise NoCorrespondenceError(
            f"{name}: none of {len(candidates)} points lies in both fields of view; "
            "ask for a smaller shift or less cropping"
        )
    points = candidates.subset(rows)
    return SyntheticPair(fixed, moving, transform, points, Points(truth[rows], points.labels), name, seed)
