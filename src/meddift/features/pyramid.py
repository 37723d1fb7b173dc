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
from meddift.geometry.sampling import is_tensor
from meddift.system.once import once

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Level:
    """One feature map: a descriptor at every voxel of a (mostly coarse) grid.

    The channels come last and lie side by side in memory. Matching reads descriptors at scattered points (one
    piece of memory a grid corner) and multiplies all of them by a block of queries: `matrix` is a view, no copy.

    Attributes:
        name: Which feature map this is: `up0`, `up1`, ... for decoder blocks, `mind` for the hand-made descriptor.
        values: (X, Y, Z, C) float32, C-contiguous: an array, or a tensor, which stays on its device. Whatever else is
            given is converted.
        grid: The grid of the first three axes, world RAS mm.
        weight: How much this level counts in a mean over levels, relative to the others; 0 or more.

    Raises:
        GeometryError: if the first three axes of `values` are not `grid.shape`, or there is no channel.
        OptionsError: if the weight is negative or not finite.
    """

    name: str
    values: NDArray[np.float32] | Tensor
    grid: Grid
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Validate, and bring the values into their layout."""
        given: Any = self.values
        values = given.float().contiguous() if is_tensor(given) else np.ascontiguousarray(given, dtype=np.float32)
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
        """Bytes that the features take in memory."""
        return int(self.values.nbytes)

    @once
    def features(self) -> NDArray[np.float32]:
        """(X, Y, Z, C) float32 in main memory; shares the memory of `values` if that is there."""
        values: Any = self.values
        found: NDArray[np.float32] = values.cpu().numpy() if is_tensor(values) else values
        return found

    @once
    def tensor(self) -> Tensor:
        """(X, Y, Z, C) float32 where `values` are; shares their memory."""
        import torch

        values: Any = self.values
        return values if is_tensor(values) else torch.from_numpy(values)

    @property
    def matrix(self) -> NDArray[np.float32]:
        """(X*Y*Z, C) float32 view, one row a voxel, the last spatial axis running fastest."""
        return self.features.reshape(-1, self.features.shape[3])

    def rounded(self) -> Level:
        """The level with its features rounded to float16, or as it is where float16 does not reach its values.

        The relative error is at most 2^-11 down to 6e-5; what is smaller is rounded to multiples of 6e-8.
        """
        import torch

        with torch.inference_mode():
            features = self.tensor
            low, high = torch.stack(torch.aminmax(features)).tolist()
            if max(-low, high) > torch.finfo(torch.float16).max:
                return self
            if features.device.type != "cpu":
                return replace(self, values=features.half().float())
            rounded = torch.empty_like(features)
            for plane, result in zip(features, rounded, strict=True):  # a plane stays in a processor's cache
                result.copy_(plane.half())
            return replace(self, values=rounded.numpy())


@dataclass(frozen=True, eq=False)
class Pyramid:
    """Everything that is known about one scan when points are looked for in it.

    Attributes:
        levels: Coarse to fine. Levels may cover more than the scan: a network pads to the size it needs.
        image_grid: The scan's own grid as it was read, in whatever orientation.
        network_grid: The grid of the image that the network saw, padding included.
        digest: 64 hexadecimal digits; equal for equal content, whatever made it.
        provenance: What made it (model, options, versions), ready for JSON.
        moments: Name of a level -> the moments of its descriptors, where they have been taken; see `moments_of`.

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
        """Levels and size."""
        return f"Pyramid({', '.join(self.names)}; {self.nbytes / 1e6:.0f} MB of {self.image_grid!r})"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the levels, coarse to fine."""
        return tuple(level.name for level in self.levels)

    @property
    def nbytes(self) -> int:
        """Bytes that the feature maps take in memory."""
        return sum(level.nbytes for level in self.levels)

    def level(self, name: str) -> Level:
        """The level of this name.

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
        """Moments of a level's descriptors, over (every n-th of) the voxels inside the scan's field of view.

        Where a grid is so coarse that no voxel is inside, all of its voxels count.

        Raises:
            OptionsError: if there is no such level.
        """
        level = self.level(name)
        known = self.moments.get(name)
        return known if known is not None else moments_of(level.tensor.flatten(0, 2), self.inside(name).reshape(-1))

    def with_moments(self) -> Pyramid:
        """The same scan with the moments of all levels taken. No array is copied."""
        return replace(self, moments={name: self.moments_of(name) for name in self.names})

    def in_main_memory(self) -> Pyramid:
        """The same scan with all levels in main memory; no array is copied that is there already."""
        return replace(self, levels=tuple(replace(level, values=level.features) for level in self.levels))

    def select(self, names: Iterable[str]) -> Pyramid:
        """The same scan with these levels only, coarse to fine whatever the order of `names`; no array is copied.

        Raises:
            OptionsError: if one of them is not there, or none is asked for.
        """
        wanted = {self.level(name).name for name in names}
        levels = tuple(level for level in self.levels if level.name in wanted)
        moments = {name: known for name, known in self.moments.items() if name in wanted}
        return replace(self, levels=levels, moments=moments)

    def weighted(self, weights: Mapping[str, float]) -> Pyramid:
        """The same scan with other weights of levels; levels that are not named weigh 1. No array is copied.

        Raises:
            OptionsError: if a weight makes no sense. Names of levels that are not here are passed over.
        """
        levels = tuple(replace(level, weight=weights.get(level.name, 1.0)) for level in self.levels)
        return replace(self, levels=levels)


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
        # Axes that run along each other: a voxel is inside if it is inside along each of them.
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
