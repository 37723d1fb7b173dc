"""Overlap of label maps after a transform: Dice and the 95th percentile of the Hausdorff distance (MONAI)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from meddift.errors import GeometryError
from meddift.volume import Volume


@dataclass(frozen=True)
class Overlap:
    """Overlap of one label in two label maps.

    Attributes:
        label: Value of the label.
        dice: Dice coefficient, 0 to 1.
        hd95_mm: 95th percentile of the distances between both surfaces, the larger of the two directions, mm; None
            if the warped label is empty.
    """

    label: int
    dice: float
    hd95_mm: float | None


def measure_overlap(fixed: Volume, warped: Volume) -> tuple[Overlap, ...]:
    """Dice and HD95 of every label of the fixed map except 0.

    Args:
        fixed: (X, Y, Z) integer labels.
        warped: The moving labels on the same grid, see `meddift.registration.warp_labels`.

    Returns:
        One entry for each label of the fixed map, in ascending order.

    Raises:
        GeometryError: if the two lie on different grids.
    """
    if not fixed.grid.same_as(warped.grid):
        raise GeometryError(f"label maps on different grids cannot be compared: {fixed.grid!r}, {warped.grid!r}")
    with warnings.catch_warnings():  # deprecation warnings about MONAI's own internals
        warnings.simplefilter("ignore")
        return tuple(_measure_label(fixed, warped, int(label)) for label in np.unique(fixed.data) if label != 0)


def _measure_label(fixed: Volume, warped: Volume, label: int) -> Overlap:
    """Overlap of one label in two maps on the same grid."""
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance

    one, other = (torch.from_numpy(np.asarray(v.data == label))[None, None].float() for v in (fixed, warped))
    dice = float(compute_dice(other, one)[0, 0])
    if not bool(other.any()):
        return Overlap(label, dice, None)
    spacing = [float(s) for s in fixed.grid.spacing]
    return Overlap(label, dice, float(compute_hausdorff_distance(other, one, percentile=95, spacing=spacing)[0, 0]))
