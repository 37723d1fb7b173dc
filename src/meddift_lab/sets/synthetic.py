"""Pairs with exact truth: drawn chests, and a scan of the user's that is deformed by a known transform."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np

from meddift.errors import NoCorrespondenceError
from meddift.points import Points
from meddift_lab import synthetic
from meddift_lab.running.case import Case, CaseData, PointSet

#: Name of the drawn breathing chests, and how many there are.
PHANTOM_BREATHING, PHANTOM_CASES = "phantom-breathing", 10
#: Seed of the first case; case i has seed FIRST_SEED + i.
FIRST_SEED = 1000
#: Points of a phantom.
PHANTOM_POINTS = 100
#: Descent of the diaphragm in the first and the last case, mm; linear in between.
SHALLOW_MM, DEEP_MM = 20.0, 40.0

#: Descent of the diaphragm in the deformed copies of one scan, mm: one case each.
DEFORMED_MM = (10.0, 20.0, 30.0, 40.0)
#: Points of each kind in a deformed scan.
DEFORMED_POINTS = 60


def phantom_amplitude_mm(number: int) -> float:
    """Descent of the diaphragm in case `number`, 0 to 9, mm."""
    return SHALLOW_MM + (DEEP_MM - SHALLOW_MM) * number / (PHANTOM_CASES - 1)


def phantom_breathing() -> list[Case]:
    """Ten drawn chests with their breathing, shifted follow-ups; the same everywhere and for everyone."""

    def load(number: int) -> CaseData:
        from meddift_lab.synthetic import phantom_pair

        pair = phantom_pair(FIRST_SEED + number, amplitude_mm=phantom_amplitude_mm(number), n_points=PHANTOM_POINTS)
        return CaseData(pair.fixed, pair.moving, (PointSet("exact", pair.points, pair.truth),))

    return [
        Case(
            name=f"phantom-{FIRST_SEED + number}",
            data_set=PHANTOM_BREATHING,
            load=lambda number=number: load(number),  # type: ignore[misc]
            origin={
                "phantom_pair": FIRST_SEED + number,
                "amplitude_mm": phantom_amplitude_mm(number),
                "n_points": PHANTOM_POINTS,
                "code": _code_digest(),
            },
        )
        for number in range(PHANTOM_CASES)
    ]


def deformed_copies(scan: Path) -> list[Case]:
    """Deformed, shifted, newly scanned copies of one chest CT, with points on vessels and anywhere in the body.

    A copy keeps the texture of its original, so errors are smaller than between two real scans.

    Args:
        scan: A CT of the chest.
    """
    stem = scan.name.removesuffix(".gz").rpartition(".")[0] or scan.name

    def load(number: int, amplitude_mm: float) -> CaseData:
        from meddift.io import read_volume
        from meddift_lab.synthetic import pick_points, scan_pair

        volume = read_volume(scan)
        pair = scan_pair(volume, FIRST_SEED + number, amplitude_mm=amplitude_mm, n_points=DEFORMED_POINTS)
        sets = [PointSet("vessels", pair.points, pair.truth)]
        candidates = pick_points(pair.fixed, 2 * DEFORMED_POINTS, kind="body", seed=FIRST_SEED + number)
        order = np.random.default_rng(FIRST_SEED + number).permutation(len(candidates))
        candidates = candidates.subset(order)
        truth = Points(pair.transform.apply(candidates.positions), candidates.labels)
        seen = pair.fixed.grid.contains(candidates.positions, margin_mm=2) & pair.moving.grid.contains(
            truth.positions, margin_mm=2
        )
        rows = np.flatnonzero(seen)[:DEFORMED_POINTS]
        if len(rows) == 0:
            raise NoCorrespondenceError(f"no point of the body of {scan} lies in both fields of view")
        sets.append(PointSet("body", candidates.subset(rows), truth.subset(rows)))
        return CaseData(pair.fixed, pair.moving, tuple(sets))

    status = scan.stat() if scan.exists() else None
    return [
        Case(
            name=f"{stem}-breathing-{amplitude:g}mm",
            data_set="deformed",
            load=lambda number=number, amplitude=amplitude: load(number, amplitude),  # type: ignore[misc]
            origin={
                "scan_pair": str(scan.resolve()),
                "bytes": None if status is None else status.st_size,
                "modified_ns": None if status is None else status.st_mtime_ns,
                "seed": FIRST_SEED + number,
                "amplitude_mm": amplitude,
                "n_points": DEFORMED_POINTS,
                "code": _code_digest(),
            },
        )
        for number, amplitude in enumerate(DEFORMED_MM)
    ]


@cache
def _code_digest() -> str:
    """sha256 of the code that makes pairs: scans of other code are made anew."""
    digest = hashlib.sha256()
    for path in sorted(Path(synthetic.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
