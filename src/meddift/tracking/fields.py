"""Fields between the scans of one patient: each is fitted once and used as the prior of later ones."""

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
    """A function that gives the pair of two time points by their numbers; see `Matcher.pair`."""

    def __call__(self, source: int, target: int, *, prior: Transform | None, back: KnownField | None) -> Pair:
        """The pair, with this prior or the results of the exchanged pair."""
        ...


class PatientFields:
    """Pairs of scans of one patient that share their results.

    For an exchanged pair the known field is inverted. If known fields can be composed by way of a third scan, the
    composition is the prior of a new pair; its field is still fitted, so that errors do not accumulate.

    Args:
        make: Makes a pair.
    """

    def __init__(self, make: MakePair) -> None:
        self._make = make
        self._known: dict[tuple[int, int], KnownField] = {}
        self._asked: tuple[tuple[int, int], Pair] | None = None

    def between(self, source: int, target: int) -> Asking:
        """The pair of two time points; only the last pair stays in memory."""
        key = source, target
        if self._asked is None or self._asked[0] != key:
            self._asked = None  # frees the memory before other scans are read
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
        """The composition of two known fields by way of the latest possible third scan."""
        for other in sorted({there for start, there in self._known if start == source}, reverse=True):
            if (other, target) in self._known:
                ways = self._known[source, other], self._known[other, target]
                return CompositeTransform(tuple(way.field.transform for way in ways))
        return None


class Asking:
    """A pair whose field is stored after matching."""

    def __init__(self, pair: Pair, keep: Callable[[], None]) -> None:
        self._pair, self._keep = pair, keep

    def match(self, places: ArrayLike) -> Matches:
        """See `Pair.match`."""
        matches = self._pair.match(places)
        self._keep()
        return matches
