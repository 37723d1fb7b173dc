"""`Pyramid`: the feature maps of one scan, each on its own grid in the world."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError, OptionsError
from meddift.features.moments import Moments, moments_of
from meddift.geometry import Grid
from meddift.geometry.sampling import is_half, is_tensor
from meddift.system.once import once

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Level:
    """One feature map: a descriptor at every voxel of a (mostly coarse) grid.

    Channels are the last axis and contiguous in memory, since matching reads whole descriptors at scattered points.

    Attributes:
        name: Name of the level: "up0", "up1", ... for decoder blocks, "mind" for MIND-SSC.
        values: (X, Y, Z, C) float32 or float16, C-contiguous: an array, or a tensor, which stays on its device. Other
            layouts are converted, and other types to float32. float16 takes half the memory; whoever computes with it
            converts to float32 only what it reads.
        grid: The grid of the first three axes, in world RAS mm.
        weight: Relative weight in a mean over levels; 0 or more.

    Raises:
        GeometryError: if the first three axes of `values` are not `grid.shape`, or there is no channel.
        OptionsError: if the weight is negative or not finite.
    """

    name: str
    values: NDArray[np.float32] | Tensor
    grid: Grid
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Validate, and convert the values to their type and layout."""
        values = _in_layout(self.values)
        if values.ndim != 4 or tuple(values.shape[:3]) != self.grid.shape or values.shape[3] < 1:
            raise GeometryError(
                f"level {self.name!r}: features of shape {tuple(values.shape)} do not lie on a grid of shape "
                f"{self.grid.shape}; the order of axes is (X, Y, Z, channels)"
            )
        if not math.isfinite(self.weight) or self.weight < 0:
            raise OptionsError(f"level {self.name!r}: a weight must be 0 or more and finite, got {self.weight}")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "weight", float(self.weight))

    def __repr__(self) -> str:
        """Name, channels and geometry in words."""
        return f"Level({self.name!r}, {self.channels} channels, {self.grid!r}, weight {self.weight:g})"

    @property
    def channels(self) -> int:
        """Length of a descriptor."""
        return int(self.values.shape[3])

    @property
    def nbytes(self) -> int:
        """Memory of the features, bytes."""
        return int(self.values.nbytes)

    @once
    def tensor(self) -> Tensor:
        """(X, Y, Z, C) of the type of `values` where they are; shares their memory."""
        import torch

        values: Any = self.values
        return values if is_tensor(values) else torch.from_numpy(values)

    @property
    def array(self) -> NDArray[np.floating]:
        """(X, Y, Z, C) of the type of `values` in main memory; shares their memory if they are there."""
        values: Any = self.values
        found: NDArray[np.floating] = values.cpu().numpy() if is_tensor(values) else values
        return found

    @property
    def features(self) -> NDArray[np.float32]:
        """(X, Y, Z, C) float32 in main memory; shares the memory of float32 `values` there, else a new copy."""
        values = self.array
        return values if values.dtype == np.float32 else self.tensor.float().cpu().numpy()

    @property
    def matrix(self) -> NDArray[np.float32]:
        """(X*Y*Z, C) float32 view of `features`: a row for each voxel, the last spatial axis running fastest."""
        return self.features.reshape(-1, self.channels)


@dataclass(frozen=True, eq=False)
class Pyramid:
    """The feature maps of one scan.

    Attributes:
        levels: The levels, coarse to fine. They may cover more than the scan, since networks need padding.
        image_grid: The scan's own grid as it was read, in any orientation.
        network_grid: The grid of the network's input, including padding.
        digest: 64 hexadecimal digits, the key of everything that the features depend on; see `pyramid_key`.
        provenance: Model, options and versions with which the features were computed, ready for JSON.
        moments: Name of a level -> the moments of its descriptors, if they have been computed; see `moments_of`.

    Raises:
        OptionsError: if there is no level, or two have the same name.
        GeometryError: if a level is coarser than the one before it.
    """

    levels: tuple[Level, ...]
    image_grid: Grid
    network_grid: Grid
    digest: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    moments: Mapping[str, Moments] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate."""
        levels = tuple(self.levels)
        object.__setattr__(self, "levels", levels)
        if not levels:
            raise OptionsError("a pyramid needs at least one level")
        if len(set(self.names)) != len(levels):
            raise OptionsError(f"levels of a pyramid need different names, got {', '.join(self.names)}")
        for coarse, fine in pairwise(levels):
            if fine.grid.voxel_volume > 1.001 * coarse.grid.voxel_volume:
                raise GeometryError(f"levels must go from coarse to fine, but {fine!r} comes after {coarse!r}")

    def __repr__(self) -> str:
        """Levels and memory."""
        return f"Pyramid({', '.join(self.names)}; {self.nbytes / 1e6:.0f} MB of {self.image_grid!r})"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the levels, coarse to fine."""
        return tuple(level.name for level in self.levels)

    @property
    def nbytes(self) -> int:
        """Memory of all feature maps, bytes."""
        return sum(level.nbytes for level in self.levels)

    def level(self, name: str) -> Level:
        """The level with this name.

        Raises:
            OptionsError: if there is none.
        """
        for level in self.levels:
            if level.name == name:
                return level
        raise OptionsError(f"there is no level {name!r}; this pyramid has {', '.join(self.names)}")

    def inside(self, name: str) -> NDArray[np.bool_]:
        """Which voxels of a level have their centre in the scan's own field of view, not in padding.

        Returns:
            (X, Y, Z) bool on the grid of that level.

        Raises:
            OptionsError: if there is no such level.
        """
        return voxels_inside(self.level(name).grid, self.image_grid)

    def moments_of(self, name: str) -> Moments:
        """Moments of a level's descriptors over the voxels inside the scan's field of view (every n-th of many).

        If the grid is so coarse that no voxel centre lies inside, all voxels are used.

        Raises:
            OptionsError: if there is no such level.
        """
        level = self.level(name)
        known = self.moments.get(name)
        return known if known is not None else moments_of(level.tensor.flatten(0, 2), self.inside(name).reshape(-1))

    def with_moments(self, names: Iterable[str]) -> Pyramid:
        """The same pyramid with the moments of some levels. No array is copied."""
        return replace(self, moments={**self.moments, **{name: self.moments_of(name) for name in names}})

    def in_main_memory(self) -> Pyramid:
        """The same pyramid with all levels in main memory; arrays that are there already are not copied."""
        return replace(self, levels=tuple(replace(level, values=level.array) for level in self.levels))

    def select(self, names: Iterable[str]) -> Pyramid:
        """The same pyramid with some levels only, coarse to fine whatever the order of `names`; nothing is copied.

        Raises:
            OptionsError: if a level does not exist, or `names` is empty.
        """
        wanted = {self.level(name).name for name in names}
        levels = tuple(level for level in self.levels if level.name in wanted)
        moments = {name: known for name, known in self.moments.items() if name in wanted}
        return replace(self, levels=levels, moments=moments)

    def weighted(self, weights: Mapping[str, float]) -> Pyramid:
        """The same pyramid with other weights of levels. No array is copied.

        Args:
            weights: Name of a level -> its weight; other levels get weight 1, and unknown names are ignored.

        Raises:
            OptionsError: if a weight is negative or not finite.
        """
        levels = tuple(replace(level, weight=weights.get(level.name, 1.0)) for level in self.levels)
        return replace(self, levels=levels)


def _in_layout(values: Any) -> Any:
    """Values as a level holds them: C-contiguous, float16 as it is, any other type as float32."""
    if is_tensor(values):
        return (values if is_half(values) else values.float()).contiguous()
    given = np.asarray(values)
    return np.ascontiguousarray(given, dtype=np.float16 if given.dtype == np.float16 else np.float32)


def voxels_inside(grid: Grid, image_grid: Grid) -> NDArray[np.bool_]:
    """Which voxels of a grid have their centre in the field of view of a scan.

    Args:
        grid: Any grid, for instance one with padding around the scan.
        image_grid: The scan's own grid; its field of view is bounded by its outer voxel faces.

    Returns:
        (X, Y, Z) bool on `grid`.
    """
    relation = image_grid.inverse @ grid.affine
    aligned = np.abs(relation[:3, :3]) > 1e-9 * np.abs(relation[:3, :3]).max()
    if (aligned.sum(axis=0) == 1).all() and (aligned.sum(axis=1) == 1).all():
        # For parallel axes a voxel is inside if it is inside along each axis.
        masks = []
        for axis in range(3):
            line = np.zeros((grid.shape[axis], 3))
            line[:] = grid.world_to_index(image_grid.center)
            line[:, axis] = np.arange(grid.shape[axis])
            masks.append(image_grid.contains(grid.index_to_world(line)))
        return np.asarray(masks[0][:, None, None] & masks[1][:, None] & masks[2])
    mask = np.empty(grid.shape, dtype=bool)
    for i, centres in enumerate(grid.planes()):
        mask[i] = image_grid.contains(centres)
    return mask
