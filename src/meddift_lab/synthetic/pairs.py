"""Two scans of one patient with every correspondence known: drawn, or made from a real scan."""

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
    """Two scans and the exact map between them.

    Attributes:
        fixed: The scan in which the points are given.
        moving: The scan in which they are looked for.
        transform: Takes fixed points to moving points, exactly.
        points: On the fixed scan, world RAS mm.
        truth: The same points on the moving scan, same labels, world RAS mm.
        name: For reports and file names.
        seed: What the pair was made from.
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
        """(N,) bool: which points the moving scan shows; the others have no counterpart in it."""
        return self.moving.grid.contains(self.truth.positions)

    @property
    def initial_error_mm(self) -> float:
        """Mean distance between a point and its true counterpart: the error of doing nothing, mm."""
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
    """What happens to a patient between two scans: breathing, local change, another position on the table.

    Args:
        seed: Directions and places; equal seeds give equal transforms.
        lung_low: (3,) least corner of the box around the lungs, fixed world RAS mm.
        lung_high: (3,) greatest corner.
        amplitude_mm: Descent of the diaphragm.
        table_shift_mm: Length of the translation; half of it or more is along S.
        rotation_degrees: Angle of the rotation about the middle of the lungs.
        local_mm: Largest displacement of each of eight local bumps.
    """
    generator = np.random.default_rng([seed, 0])
    low, high = np.asarray(lung_low), np.asarray(lung_high)
    direction = generator.normal(size=3) * [1.0, 0.5, 2.0]
    direction /= np.linalg.norm(direction)
    # Tables move along the patient more than anywhere else.
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
    """A drawn chest, and the same chest later, elsewhere, on another scanner.

    Points are the middles of the lesions, then forks of vessels and airways in random order.

    Args:
        seed: Equal seeds and options give equal voxels.
        amplitude_mm: Descent of the diaphragm between the scans.
        table_shift_mm: Translation between the scans.
        rotation_degrees: Rotation between the scans.
        local_mm: Size of local changes.
        n_points: Number of points, lesions included; fewer if the phantom has fewer.
        spacing_mm: Voxel size of the drawing.
        thickness_mm: Slice thickness of the moving scan; `None` draws 1 to 5 mm.
        crop_mm: Field of view lost on each side of the moving scan, at most; `None` draws up to 25 mm.
        noise_std_hu: Noise of the moving scan; `None` draws 8 to 30 HU.
        lesions: Number of nodules.
        preserve_mass: Whether the lungs get lighter where they take in air; see `follow_volume`.
        sliding_mm: How far the lungs slide along the wall of the chest, see `Sliding`; 0 = not at all.

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
    """A real scan, and what it would look like later, elsewhere, on another scanner.

    The noise of the scan is taken out before anything else (`remove_noise`), so that it is not deformed along with
    the anatomy: `fixed` gets as much noise again as the scan had, `moving` other noise, each from its own stream.
    What the filter cannot tell from noise, the faintest texture of tissue, is lost to both. The lungs get lighter
    where they take in air (`follow_volume`). Where the fixed scan ends, the moving one shows air.

    Args:
        volume: CT in HU; `fixed` is this scan on the same grid with its noise renewed, int16.
        seed: Equal seeds and options give equal voxels.
        amplitude_mm: Descent of the diaphragm between the scans.
        table_shift_mm: Translation between the scans.
        rotation_degrees: Rotation between the scans.
        local_mm: Size of local changes.
        n_points: Number of points; fewer if the scan has fewer that both fields of view show.
        kind: As in `pick_points`. Scans without lungs need `"body"` or `"lattice"`.
        thickness_mm: Slice thickness of the moving scan; `None` draws 1 to 5 mm.
        crop_mm: Field of view lost on each side of the moving scan, at most; `None` draws up to 25 mm.
        noise_std_hu: Noise of the moving scan; `None` draws 8 to 30 HU.
        preserve_mass: Whether the lungs get lighter where they take in air.
        sliding_mm: How far the lungs slide along the wall of the chest, see `Sliding`; 0 = not at all.
        name: Of the pair.

    Returns:
        SyntheticPair whose points all lie in both fields of view.

    Raises:
        NoCorrespondenceError: if nothing of the kind asked for is in view.
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
    # Some candidates fall out of the other field of view: pick more than needed, best first.
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
    """Keep the first candidates that both fields of view show, at least 2 mm from their borders."""
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
