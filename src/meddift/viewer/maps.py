"""Similarity maps for the browser, and rival positions in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.viewer.copies import nifti_bytes
from meddift.volume import Volume

#: Voxel size of a map, mm.
SPACING_MM = 4.0
#: Smallest distance of a rival from the match and from other rivals, mm.
APART_MM = 15.0
#: Largest number of rivals.
MOST_RIVALS = 4
#: Smallest similarity of a rival, as a share of the highest similarity.
LEAST_SHARE = 0.85
#: Quantile of the map below which nothing is drawn.
SHOWN_FROM = 0.98
#: Factor from cosine to the integer stored in the file.
SCALE = 10_000


@dataclass(frozen=True, eq=False)
class Rival:
    """A local maximum of similarity away from the match.

    Attributes:
        position: (3,) world RAS mm on the moving scan.
        similarity: Cosine similarity there, -1 to 1.
    """

    position: tuple[float, float, float]
    similarity: float


@dataclass(frozen=True, eq=False)
class ShownMap:
    """A similarity map, ready for the browser.

    Attributes:
        similarity: (X, Y, Z) float32 cosine.
        nifti: Content of a NIfTI file of the map, int16: cosine divided by `scale`.
        scale: Cosine of the value 1 in the file.
        low: Cosine below which nothing is drawn.
        high: Highest cosine, the end of the colour scale.
        rivals: Local maxima away from the match, the most similar first.
    """

    similarity: Volume
    nifti: bytes
    scale: float
    low: float
    high: float
    rivals: tuple[Rival, ...]


def shown_map(similarity: Volume, answer: NDArray[np.float64] | None) -> ShownMap:
    """Prepare a map for drawing.

    Args:
        similarity: (X, Y, Z) float32 cosine, as from `Pair.similarity`.
        answer: (3,) float64, the match, world RAS mm, near which rivals are left out; None if there is no match.
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
    """The most similar local maxima away from the match and from each other.

    Args:
        similarity: (X, Y, Z), without NaN.
        answer: As for `shown_map`; None takes the position of the highest similarity instead.
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
