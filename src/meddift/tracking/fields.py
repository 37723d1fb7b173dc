"""Fields between the scans of one patient: each is found once, and helps to find the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from meddift.geometry import CompositeTransform, Transform

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from meddift.matching import Matches
    from meddift.pipeline.known_field import KnownField
    from meddift.pipeline.pair import Pair


class MakePair(Protocol):
    """Gives the pair of two time points by their numbers; see `Matcher.pair`."""

    def __call__(self, source: int, target: int, *, prior: Transform | None, back: KnownField | None) -> Pair:
        """The pair, knowing what is said."""
        ...


class PatientFields:
    """Asks pairs of scans of one patient, and tells each what earlier ones have found.

    The way back lies under the inverse of the field that is known. Where fields lead from scan to scan by way of a
    third one, they say where points are expected: the field itself is matched anew, so that it does not repeat their
    errors.

    Args:
        make: Makes a pair.
    """

    def __init__(self, make: MakePair) -> None:
        self._make = make
        self._known: dict[tuple[int, int], KnownField] = {}
        self._asked: tuple[tuple[int, int], Pair] | None = None

    def between(self, source: int, target: int) -> Asking:
        """Two scans that can be asked; only the last ones asked stay in memory."""
        key = source, target
        if self._asked is None or self._asked[0] != key:
            self._asked = None  # before others are read
            back = self._known.get((target, source))
            prior = None if back is not None else self._by_way_of_others(source, target)
            self._asked = key, self._make(source, target, prior=prior, back=back)
        pair = self._asked[1]

        def keep() -> None:
            found = pair.known_field
            if found is not None:
                self._known[key] = found

        return Asking(pair, keep)

    def _by_way_of_others(self, source: int, target: int) -> Transform | None:
        """Two known fields after each other; the third scan as late as may be."""
        for other in sorted({there for start, there in self._known if start == source}, reverse=True):
            if (other, target) in self._known:
                ways = self._known[source, other], self._known[other, target]
                return CompositeTransform(tuple(way.field.transform for way in ways))
        return None


class Asking:
    """A pair that is asked; what it finds out is kept."""

    def __init__(self, pair: Pair, keep: Callable[[], None]) -> None:
        self._pair, self._keep = pair, keep

    def match(self, places: ArrayLike) -> Matches:
        """See `Pair.match`."""
        matches = self._pair.match(places)
        self._keep()
        return matches
