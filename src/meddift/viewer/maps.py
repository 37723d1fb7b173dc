"""A similarity map for the browser, and the places beside the best one that come next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.viewer.copies import nifti_bytes
from meddift.volume import Volume

#: Voxels of a map, mm: fine enough to look at, and quick.
SPACING_MM = 4.0
#: Rivals are at least so far from the best place and from each other.
APART_MM = 15.0
#: So many are shown at most.
MOST_RIVALS = 4
#: A rival reaches at least this share of the best similarity.
LEAST_SHARE = 0.85
#: What is drawn begins at this quantile of the map.
SHOWN_FROM = 0.98
#: Cosine times this is what stands in the file.
SCALE = 10_000


@dataclass(frozen=True, eq=False)
class Rival:
    """A place that is similar, too.

    Attributes:
        position: (3,) world RAS mm.
        similarity: Of the place in the map.
    """

    position: tuple[float, float, float]
    similarity: float


@dataclass(frozen=True, eq=False)
class ShownMap:
    """A map as the browser is sent it.

    Attributes:
        similarity: (X, Y, Z) float32 cosine.
        nifti: The same as a whole NIfTI file, int16: cosine divided by `scale`.
        scale: See there.
        low: Where the colours begin, cosine; below, nothing is drawn.
        high: Where they end: the greatest similarity.
        rivals: Local maxima beside the answer, the most similar first.
    """

    similarity: Volume
    nifti: bytes
    scale: float
    low: float
    high: float
    rivals: tuple[Rival, ...]


def shown_map(similarity: Volume, answer: NDArray[np.float64] | None) -> ShownMap:
    """Make a map ready to be drawn.

    Args:
        similarity: (X, Y, Z) float32 cosine, as from `Pair.similarity`.
        answer: (3,) world RAS mm, the place found, near which there are no rivals; None where there is none.
    """
    values = np.nan_to_num(similarity.data.astype(np.float32), nan=-1.0)
    high = float(values.max())
    low = min(float(np.quantile(values, SHOWN_FROM)), high - 1e-3)
    stored = np.rint(np.clip(values, -1, 1) * SCALE).astype(np.int16)
    return ShownMap(
        similarity=Volume(values, similarity.grid),
        nifti=nifti_bytes(Volume(stored, similarity.grid)),
        scale=1.0 / SCALE,
        low=low,
        high=high,
        rivals=rivals_of(Volume(values, similarity.grid), answer),
    )


def rivals_of(similarity: Volume, answer: NDArray[np.float64] | None) -> tuple[Rival, ...]:
    """The most similar local maxima away from the answer and from each other.

    Args:
        similarity: (X, Y, Z), without NaN.
        answer: As for `shown_map`; None takes the greatest similarity instead.
    """
    from scipy.ndimage import maximum_filter

    values, grid = similarity.data, similarity.grid
    best = float(values.max())
    taken = [grid.index_to_world(np.array(np.unravel_index(int(values.argmax()), values.shape)))]
    if answer is not None:
        taken.append(np.asarray(answer, dtype=np.float64))
    peaks = np.argwhere((values == maximum_filter(values, size=3)) & (values >= LEAST_SHARE * best))
    peaks = peaks[np.argsort(-values[tuple(peaks.T)], kind="stable")]
    found: list[Rival] = []
    for index, position in zip(peaks, grid.index_to_world(peaks.astype(np.float64)), strict=True):
        if len(found) == MOST_RIVALS:
            break
        if min(float(np.linalg.norm(position - other)) for other in taken) >= APART_MM:
            taken.append(position)
            found.append(Rival(tuple(float(v) for v in position), float(values[tuple(index)])))  # type: ignore[arg-type]
    return tuple(found)
