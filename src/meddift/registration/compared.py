"""`ComparedScans`: the descriptors and masks of two scans on the device, and the groups that may slide."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch

from meddift.errors import NoCorrespondenceError
from meddift.features.extraction import MIND
from meddift.geometry import Grid, nearest, sample
from meddift.registration.feature_map import DescribedScan, FeatureMap, fine_maps
from meddift.registration.field import TensorField
from meddift.volume import DeviceVolume, Volume

#: Voxel sizes of the grids of dense matching, mm, one for each pass.
PASSES_MM = (8.0, 4.0)
#: Voxel size of the resulting displacement field, mm.
FIELD_MM = 4.0
#: Semantic levels with voxels larger than this, mm, are not used in dense matching.
COARSEST_MM = 10.0

#: One field for each sliding group.
Parts: TypeAlias = tuple[TensorField, ...]
#: Descriptors of the fixed and the moving scan on grids of equal spacing.
Maps: TypeAlias = tuple[FeatureMap, FeatureMap]


@dataclass(eq=False)
class ComparedScans:
    """A fixed and a moving scan on the device of their descriptors.

    Args:
        fixed: The fixed scan.
        moving: The moving scan, on the same device.
        fixed_mask: (X, Y, Z) bool, where the fixed scan is compared; elsewhere the transform is extrapolated smoothly.
        moving_mask: (X, Y, Z) bool, where the moving scan may be matched.
        sliding: (X, Y, Z) bool, region of the fixed scan that may slide along the rest, such as the lungs along the
            chest wall: the field is smooth on either side and may be discontinuous between them. None = no sliding.

    Attributes:
        device: Device of the descriptors.
        field_grid: Grid of the resulting displacement field, over the field of view of the fixed scan.
        body: (X, Y, Z) bool, the mask of the fixed scan on `field_grid`.
        fine: Name of the level with the finest detail.
        semantic: Names of the other levels that are used in dense matching.

    Raises:
        NoCorrespondenceError: if the mask of the fixed scan is empty.
    """

    fixed: DescribedScan
    moving: DescribedScan
    fixed_mask: Volume
    moving_mask: Volume
    sliding: Volume | None = None

    def __post_init__(self) -> None:
        """Prepare grids, masks on the device, and names of levels."""
        self.device = self.fixed.device
        self.field_grid = self.grid_of(FIELD_MM)
        self._fixed_shown, self._moving_shown = (
            self._sent(mask).float() for mask in (self.fixed_mask, self.moving_mask)
        )
        self.body = self.mask_on(self.field_grid)
        self._slides = None if self.sliding is None else self._sent(self.sliding)
        levels = self.fixed.levels
        self.fine = MIND if MIND in levels else list(levels)[-1]
        self.semantic = [name for name, level in levels.items() if name != self.fine and matched_densely(level.grid)]
        if not bool(self.body.any()):
            raise NoCorrespondenceError("the mask of the scan is empty: there is nothing to register")

    def _sent(self, mask: Volume) -> torch.Tensor:
        """(X, Y, Z, 1) bool, a mask on the device."""
        return DeviceVolume.sent(mask, self.device).tensor.contiguous()[..., None]

    def grid_of(self, spacing_mm: float, *, moving: bool = False) -> Grid:
        """A grid of this spacing over the field of view of a scan, along its axes in RAS order."""
        return matching_grid((self.moving if moving else self.fixed).image_grid, spacing_mm)

    def mask_on(self, grid: Grid, *, moving: bool = False) -> torch.Tensor:
        """(X, Y, Z) bool, a mask on another grid: True where its interpolated value is at least a quarter."""
        mask = self.moving_mask.grid if moving else self.fixed_mask.grid
        values = sample(
            self._moving_shown if moving else self._fixed_shown,
            mask.world_to_index(grid.voxel_centers_on(self.device)),
            fill=0.0,
        )
        return (values[:, 0] >= 0.25).reshape(grid.shape)

    @property
    def groups(self) -> int:
        """Number of sliding groups."""
        return 1 if self.sliding is None else 2

    def group_of(self, positions: torch.Tensor) -> torch.Tensor:
        """(N,) int64, sliding group of (N, 3) fixed positions, world RAS mm."""
        if self.sliding is None or self._slides is None:
            return torch.zeros(len(positions), dtype=torch.int64, device=self.device)
        return nearest(self._slides, self.sliding.grid.world_to_index(positions))[:, 0].long()

    def moved(self, current: Parts, positions: torch.Tensor) -> torch.Tensor:
        """Map (N, 3) fixed positions, world RAS mm, each by the field of its group."""
        moved = current[0].apply(positions)
        if len(current) > 1:
            rows = self.group_of(positions).nonzero()[:, 0]
            moved[rows] = current[1].apply(positions[rows])
        return moved

    def counted(self, positions: torch.Tensor) -> torch.Tensor:
        """(N,) bool, whether (N, 3) moving world RAS mm lie in field of view and mask of the moving scan."""
        index = self.moving_mask.grid.world_to_index(positions)
        return self.moving.image_grid.contains(positions) & (nearest(self._moving_shown, index)[:, 0] > 0)

    @cached_property
    def maps(self) -> Maps:
        """The finest level of both scans on the grids of the last pass."""
        grids = self.grid_of(PASSES_MM[-1]), self.grid_of(PASSES_MM[-1], moving=True)
        return fine_maps((self.fixed, self.moving), grids, self.fine)

    def coarse_maps(self) -> Maps:
        """The finest level of both scans on the grids of the first pass."""
        fixed, moving = self.maps
        return fixed.resampled(self.grid_of(PASSES_MM[0])), moving.resampled(self.grid_of(PASSES_MM[0], moving=True))


def matched_densely(level: Grid) -> bool:
    """Whether a semantic level on this grid is fine enough for dense matching."""
    return bool(level.spacing.max() <= COARSEST_MM)


def matching_grid(image: Grid, spacing_mm: float) -> Grid:
    """A grid of this spacing, mm, over the field of view of a scan, along its axes in RAS order."""
    return image.reoriented("RAS")[0].respaced(spacing_mm)
