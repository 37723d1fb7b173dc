"""How much memory and time cases take, from the headers of their scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from meddift.cohort.cases import Case
from meddift.cohort.needs import Needs
from meddift.errors import MeddiftError
from meddift.features.extraction import MIND
from meddift.models import network_grid
from meddift.pipeline.memory import estimate_memory, stored_bytes

if TYPE_CHECKING:
    from meddift.geometry import Grid
    from meddift.pipeline import Matcher

#: So many points are counted with; they take little beside the features.
_POINTS = 300
#: Processor seconds for a million voxels of the network's grid: encoding with the network, the hand-made level, and
#: a pair (docs/scaling.md).
_ENCODE_S, _MIND_S, _PAIR_S = 1.5, 0.4, 6.1


def estimate(cases: Sequence[Case], matcher: Matcher) -> Needs:
    """Memory and time for some cases; scans whose headers cannot be read do not count.

    Args:
        cases: What is to be done.
        matcher: With what.
    """
    from meddift.io.images import read_header

    grids: dict[str, Grid] = {}
    for scan in dict.fromkeys(scan for case in cases for scan in case.scans):
        try:
            grids[scan] = read_header(scan).grid
        except MeddiftError:
            continue
    if not grids:
        return Needs()
    spec, extraction = matcher.spec, matcher.extraction
    most = max(
        estimate_memory(spec, extraction, matcher.options, grids[a], grids[b], _POINTS).peak_bytes
        for a, b in _pairs(cases, grids)
    )
    millions = {scan: network_grid(grid, spec).size / 1e6 for scan, grid in grids.items()}
    rate = (_ENCODE_S if extraction.network_levels else 0.0) + (_MIND_S if MIND in extraction.levels else 0.0)
    pairs = sum(sum(millions.get(scan, 0.0) for scan in case.scans[1:]) for case in cases)
    largest = max(grids.values(), key=lambda grid: grid.size)
    return Needs(
        memory_bytes=most,
        scan_s=rate * sum(millions.values()),
        case_s=_PAIR_S * pairs,
        devices=_devices(matcher),
        store_bytes=stored_bytes(spec, extraction, largest),
    )


def _pairs(cases: Sequence[Case], grids: dict[str, Grid]) -> set[tuple[str, str]]:
    """The two largest scans of every case, as far as they can be read."""
    found = set()
    for case in cases:
        known = sorted((scan for scan in case.scans if scan in grids), key=lambda scan: -grids[scan].size)[:2]
        if known:
            found.add((known[0], known[-1]))
    return found


def _devices(matcher: Matcher) -> tuple[str, ...]:
    """Numbers of the CUDA devices that are there; none where the processor computes."""
    if matcher.device == "cpu":
        return ()
    import torch

    return tuple(str(number) for number in range(torch.cuda.device_count()))
