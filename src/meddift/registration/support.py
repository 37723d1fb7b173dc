"""Where the two scans have something in common, and how far off the transform may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.geometry import Grid
from meddift.matching.cost_volume import CostVolume
from meddift.registration.dense import DenseField
from meddift.registration.jacobian import read_on
from meddift.volume import Volume

#: Neighbouring nodes speak for each other within about so many nodes (standard deviation of a Gaussian).
NEIGHBOURHOOD_NODES = 1.5
#: Where nodes differ from their neighbours by more than this on average, mm, there is no counterpart.
LARGEST_DISAGREEMENT_MM = 7.0
#: Least error, and how it grows with the disagreement of neighbours; measured, see the tests.
BASE_MM, PER_DISAGREEMENT = 0.25, 0.42


@dataclass(frozen=True, eq=False)
class Support:
    """What dense matching says about its own answers, at the nodes of a lattice.

    Attributes:
        grid: The lattice of nodes.
        disagreement_mm: (a, b, c) float32, how far the places that nodes find by themselves lie from the smooth
            field, averaged over neighbours; large where nothing is known.
        supported: (a, b, c) bool.
    """

    grid: Grid
    disagreement_mm: NDArray[np.float32]
    supported: NDArray[np.bool_]

    def uncertainty_on(self, grid: Grid) -> NDArray[np.float32]:
        """(X, Y, Z) float32, mm, on a lattice."""
        error = np.hypot(BASE_MM, PER_DISAGREEMENT * self.disagreement_mm)
        return np.asarray(read_on(Volume(error, self.grid), grid).data)

    def supported_on(self, grid: Grid) -> NDArray[np.bool_]:
        """(X, Y, Z) bool on a lattice."""
        return np.asarray(read_on(Volume(self.supported.astype(np.float32), self.grid), grid).data >= 0.5)


def judge_support(volume: CostVolume, field: DenseField, grid: Grid, shown: torch.Tensor) -> Support:
    """Find out where matches of neighbours agree.

    Args:
        volume: Costs that were compared.
        field: What came of them.
        grid: The lattice of nodes.
        shown: (a, b, c) bool, where the moving scan shows what the transform puts there.
    """
    from scipy import ndimage

    at = tuple(volume.nodes.T)
    smooth = field.displacement.numpy()[at]
    # Displacements are told in voxels of the compared lattice, of which every so many are nodes.
    away = np.linalg.norm(grid.vectors_to_world((field.first.numpy() - smooth) / volume.stride), axis=1)
    total, weight = np.zeros(volume.shape, np.float32), np.zeros(volume.shape, np.float32)
    total[at] = away
    weight[at] = 1.0
    weight[at] *= shown.numpy()[at]
    total *= weight
    # One unseen node that knows nothing stands in for what lies far from all nodes.
    unknown = 2.0 * LARGEST_DISAGREEMENT_MM
    blurred = ndimage.gaussian_filter(total, NEIGHBOURHOOD_NODES, mode="constant")
    share = ndimage.gaussian_filter(weight, NEIGHBOURHOOD_NODES, mode="constant")
    disagreement = (blurred + 0.02 * unknown) / (share + 0.02)
    supported = (disagreement <= LARGEST_DISAGREEMENT_MM) & shown.numpy()
    return Support(grid, disagreement.astype(np.float32), supported)
