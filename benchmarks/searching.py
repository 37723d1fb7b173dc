"""Finding the most similar voxel: ours, and other ways to the same answer."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from measuring import measured
from numpy.typing import NDArray
from torch.nn import functional

from meddift.features import Level, Pyramid
from meddift.geometry import Grid
from meddift.matching import GlobalSearch, SearchIndex

#: Channels of the decoder levels of MAISI's U-Net, and image voxels along one axis of theirs.
LEVELS = ((512, 16), (256, 8), (128, 4), (64, 4))


def pyramid(image: list[int], network: list[int]) -> Pyramid:
    """Random feature maps of MAISI's sizes that vary as slowly as those of a network do."""
    torch.manual_seed(0)
    grid = Grid((image[0], image[1], image[2]), np.diag([1.75, 1.25, 1.75, 1.0]))
    levels = []
    for number, (channels, stride) in enumerate(LEVELS):
        size = [n // stride for n in network]
        coarse = torch.randn(1, channels, *[max(2, n // 2) for n in size])
        features = functional.interpolate(coarse, size=size, mode="trilinear", align_corners=False)
        features += 0.5 * torch.randn(features.shape)
        own = np.ascontiguousarray(features[0].permute(1, 2, 3, 0).numpy())
        levels.append(Level(f"up{number}", own, grid.resized((size[0], size[1], size[2]))))
    return Pyramid(tuple(levels), grid, grid.resized((network[0], network[1], network[2])), "0" * 64)


def queries(index: SearchIndex, count: int) -> list[torch.Tensor]:
    """Descriptors at random places, half of each replaced by noise, so that the place is not given away."""
    generator = np.random.default_rng(1)
    positions = index.grid.index_to_world(generator.uniform(0, np.array(index.grid.shape) - 1, (count, 3)))
    torch.manual_seed(2)
    noisy = [d + 0.7 * functional.normalize(torch.randn_like(d), dim=1) for d in index.describe(positions)]
    return [functional.normalize(d, dim=1) for d in noisy]


def ours(told: dict[str, Any]) -> dict[str, Any]:
    scan = pyramid(told["image"], told["network"])
    index = SearchIndex(scan, scan.image_grid)
    asked = queries(index, told["points"])

    def prepare() -> GlobalSearch:
        fresh = SearchIndex(scan, scan.image_grid)
        return GlobalSearch(fresh)

    once, search = measured(prepare)
    row, found = measured(lambda: search(asked, rivals=False), repeats=told.get("repeats", 1))
    peak = max(once["peak_bytes"] - once["before_bytes"], row["peak_bytes"] - once["before_bytes"])
    return {
        **row,
        "once_seconds": once["processor_seconds"],
        "beyond_bytes": peak,
        "visited": found.visited,
    }


def one_point(told: dict[str, Any]) -> dict[str, Any]:
    """A new point on an encoded pair: its descriptor, the search over the whole scan, and the best rival."""
    scan = pyramid(told["image"], told["network"])
    index = SearchIndex(scan, scan.image_grid)
    search = GlobalSearch(index)
    places = scan.image_grid.index_to_world(
        np.random.default_rng(3).uniform(0, np.array(scan.image_grid.shape) - 1, (told["repeats"] + 1, 3))
    )
    asked = iter(places)
    row, _ = measured(lambda: search(index.describe(next(asked)[None])), repeats=told["repeats"], warm_up=True)
    return {**row, "beyond_bytes": row["peak_bytes"] - row["before_bytes"], "feature_bytes": scan.nbytes}


def _full(scan: Pyramid, slab: slice | None = None) -> torch.Tensor:
    """(C, V), unit descriptors of all levels at the image's voxels, times the root of their share."""
    shape = scan.image_grid.shape
    parts = []
    for level in scan.levels:
        values = torch.from_numpy(level.features).permute(3, 0, 1, 2)[None]
        if slab is None:
            values = functional.interpolate(values, size=shape, mode="trilinear", align_corners=False)
        else:
            x = (torch.arange(slab.start, slab.stop) + 0.5) * values.shape[2] / shape[0] - 0.5
            x = x.clamp(0, values.shape[2] - 1)
            low = x.floor().long().clamp(max=values.shape[2] - 2)
            part = (x - low)[:, None, None]
            plane = functional.interpolate(
                values[0].permute(1, 0, 2, 3)[int(low[0]) : int(low[-1]) + 2],
                size=shape[1:], mode="bilinear", align_corners=False,
            )  # fmt: skip
            low = low - int(low[0])
            values = torch.lerp(plane[low], plane[low + 1], part[:, None]).permute(1, 0, 2, 3)[None]
        values = values[0].flatten(1)
        parts.append(values / values.norm(dim=0, keepdim=True))
    return torch.cat(parts).mul_(len(parts) ** -0.5)


def reference(told: dict[str, Any]) -> dict[str, Any]:
    """As the paper's code does it: all levels at every voxel of the image, normalised, times a block of points.

    The product is written as there, (N, 1, C) @ (1, C, V): one product with a vector for each point.
    """
    scan = pyramid(told["image"], told["network"])
    asked = torch.cat(queries(SearchIndex(scan, scan.image_grid), told["points"]), dim=1) * len(LEVELS) ** -0.5

    def work() -> tuple[torch.Tensor, torch.Tensor]:
        best = torch.matmul(asked[:, None], _full(scan)[None])[:, 0].max(dim=1)
        return best.values, best.indices

    row, (value, place) = measured(work)
    return {**row, **_answer(row, value, place, scan, asked)}


def chunked(told: dict[str, Any]) -> dict[str, Any]:
    """The same a few planes at a time, keeping the best so far: what one would write with PyTorch."""
    scan = pyramid(told["image"], told["network"])
    asked = torch.cat(queries(SearchIndex(scan, scan.image_grid), told["points"]), dim=1) * len(LEVELS) ** -0.5
    length, plane = scan.image_grid.shape[0], scan.image_grid.shape[1] * scan.image_grid.shape[2]
    thickness = max(1, 100_000 // plane)

    def work() -> tuple[torch.Tensor, torch.Tensor]:
        best = torch.full((len(asked),), -torch.inf)
        place = torch.zeros(len(asked), dtype=torch.int64)
        for start in range(0, length, thickness):
            value, here = (asked @ _full(scan, slice(start, min(start + thickness, length)))).max(dim=1)
            place = torch.where(value > best, here + start * plane, place)
            best = torch.maximum(value, best)
        return best, place

    row, (value, place) = measured(work)
    return {**row, **_answer(row, value, place, scan, asked)}


def faiss(told: dict[str, Any]) -> dict[str, Any]:
    """FAISS's exact index on flattened descriptors of all voxels (faiss-cpu; not a dependency of meddift)."""
    try:
        import faiss as library
    except ImportError:
        return {"missing": "pip install faiss-cpu"}
    scan = pyramid(told["image"], told["network"])
    asked = torch.cat(queries(SearchIndex(scan, scan.image_grid), told["points"]), dim=1) * len(LEVELS) ** -0.5

    def build() -> Any:
        rows = _full(scan).T.contiguous().numpy()
        made = library.IndexFlatIP(rows.shape[1])
        made.add(rows)
        return made

    once, index = measured(build)
    row, found = measured(lambda: index.search(asked.numpy(), 1))
    whole = {"before_bytes": once["before_bytes"], "peak_bytes": max(once["peak_bytes"], row["peak_bytes"])}
    value, place = (torch.from_numpy(part[:, 0]) for part in found)
    return {**row, "once_seconds": once["processor_seconds"], **_answer(whole, value, place, scan, asked)}


def _answer(
    row: dict[str, Any], value: torch.Tensor, place: torch.Tensor, scan: Pyramid, asked: torch.Tensor
) -> dict[str, Any]:
    """What was found, and how it compares with what our search finds for the same descriptors.

    Where the voxels differ, both similarities are computed anew in float64: `lost` holds by how much ours is the less
    similar one (negative where it is the more similar one).
    """
    voxels = np.stack(np.unravel_index(place.numpy(), scan.image_grid.shape), axis=1)
    parts = [functional.normalize(part, dim=1) for part in asked.split([channels for channels, _ in LEVELS], dim=1)]
    found = GlobalSearch(SearchIndex(scan, scan.image_grid))(parts, rivals=False).voxels
    different = np.flatnonzero((found != voxels).any(axis=1))
    theirs, mine = (_exact(scan, parts, different, places[different]) for places in (voxels, found))
    return {
        "beyond_bytes": row["peak_bytes"] - row["before_bytes"],
        "same": int(len(voxels) - len(different)),
        "lost": (theirs - mine).tolist(),
    }


def _exact(
    scan: Pyramid, parts: list[torch.Tensor], rows: NDArray[np.int64], voxels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n,) mean cosine over levels in float64, by trilinear interpolation written out: half-voxel centres, clamped."""
    total = np.zeros(len(rows))
    for level, part in zip(scan.levels, parts, strict=True):
        size = np.array(level.features.shape[:3])
        at = np.clip((voxels + 0.5) * size / np.array(scan.image_grid.shape) - 0.5, 0, size - 1)
        low = np.minimum(np.floor(at).astype(np.int64), size - 2)
        share = at - low
        value = np.zeros((len(rows), level.features.shape[3]))
        for corner in product((0, 1), repeat=3):
            weight = np.prod(np.where(corner, share, 1 - share), axis=1)
            value += weight[:, None] * level.features[tuple((low + corner).T)].astype(np.float64)
        query = part.numpy()[rows].astype(np.float64)
        lengths = np.linalg.norm(value, axis=1) * np.linalg.norm(query, axis=1)
        total += (value * query).sum(axis=1) / lengths
    return total / len(parts)
