"""Estimate memory and time of cases from the headers of their scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from meddift.cohort.cases import Case
from meddift.cohort.needs import Needs
from meddift.errors import MeddiftError
from meddift.features.extraction import MIND
from meddift.models import network_grid
from meddift.pipeline.memory import estimate_memory, pyramid_bytes

if TYPE_CHECKING:
    from meddift.geometry import Grid
    from meddift.pipeline import Matcher

#: Number of points assumed in the estimate; points take little memory beside the features.
_POINTS = 300
#: Processor seconds per million voxels of the network's grid, for encoding with the network, for the hand-crafted
#: level (MIND), and for a pair (measured, see docs/scaling.md).
_ENCODE_S, _MIND_S, _PAIR_S = 1.5, 0.4, 6.1


def estimate(cases: Sequence[Case], matcher: Matcher) -> Needs:
    """Estimate memory and time for some cases; scans whose headers cannot be read are left out.

    Args:
        cases: Cases to be done.
        matcher: Matcher with the model and options that will be used.

    Returns:
        Memory in bytes of one worker, and processor seconds of all scans and of all cases.
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
    devices = _devices(matcher)
    spec, extraction = matcher.settings.planned_spec, matcher.extraction
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
        devices=devices,
        store_bytes=pyramid_bytes(spec, extraction, largest),
    )


def _pairs(cases: Sequence[Case], grids: dict[str, Grid]) -> set[tuple[str, str]]:
    """Paths of the two largest readable scans of every case."""
    found = set()
    for case in cases:
        known = sorted((scan for scan in case.scans if scan in grids), key=lambda scan: -grids[scan].size)[:2]
        if known:
            found.add((known[0], known[-1]))
    return found


def _devices(matcher: Matcher) -> tuple[str, ...]:
    """Indices of the CUDA devices; empty if computation runs on the CPU."""
    if matcher.device == "cpu":
        return ()
    import torch

    return tuple(str(number) for number in range(torch.cuda.device_count()))
