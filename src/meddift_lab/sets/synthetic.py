"""Cases with exact ground truth: phantoms, and scans of the user deformed by a known transform."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np

from meddift.errors import NoCorrespondenceError
from meddift.points import Points
from meddift_lab import synthetic
from meddift_lab.running.case import Case, CaseData, PointSet

#: Name of the data set of breathing phantoms, and its number of cases.
PHANTOM_BREATHING, PHANTOM_CASES = "phantom-breathing", 10
#: Seed of the first case; case i has seed FIRST_SEED + i.
FIRST_SEED = 1000
#: Number of points of a phantom.
PHANTOM_POINTS = 100
#: Descent of the diaphragm in the first and the last case, mm; linear in between.
SHALLOW_MM, DEEP_MM = 20.0, 40.0

#: Descent of the diaphragm in the deformed copies of one scan, mm: one case each.
DEFORMED_MM = (10.0, 20.0, 30.0, 40.0)
#: Number of points of each kind in a deformed scan.
DEFORMED_POINTS = 60
#: Sliding of the lungs in the copies of a scan, mm: one case each; the diaphragm descends by `SLIDING_BREATH_MM`.
SLIDING_MM, SLIDING_BREATH_MM = (10.0, 15.0, 20.0, 30.0), 15.0
#: Number of phantoms with sliding lungs.
SLIDING_PHANTOMS = 4
#: Slice thickness of the fixed and the moving scan in the copies of an MR scan, mm: one case each.
MR_THICKNESS_MM = ((1.0, 3.0), (3.0, 3.0), (3.0, 4.0))
#: Descent of the diaphragm in the MR-like copies of an abdominal CT, mm: one case each.
ABDOMEN_MM = (10.0, 20.0, 30.0)


def phantom_amplitude_mm(number: int) -> float:
    """Descent of the diaphragm in case `number`, 0 to 9, mm."""
    return SHALLOW_MM + (DEEP_MM - SHALLOW_MM) * number / (PHANTOM_CASES - 1)


def phantom_breathing(*, sliding: bool = False) -> list[Case]:
    """Phantoms with simulated follow-up scans after breathing and repositioning; seeds are fixed.

    Args:
        sliding: Whether the lungs slide along the chest wall, by `SLIDING_MM`.

    Returns:
        `SLIDING_PHANTOMS` cases with sliding, `PHANTOM_CASES` without.
    """

    def load(number: int) -> CaseData:
        from meddift_lab.synthetic import phantom_pair

        pair = phantom_pair(
            FIRST_SEED + number,
            amplitude_mm=phantom_amplitude_mm(number),
            n_points=PHANTOM_POINTS,
            sliding_mm=SLIDING_MM[number] if sliding else 0.0,
        )
        return CaseData(pair.fixed, pair.moving, (PointSet("exact", pair.points, pair.truth),))

    return [
        Case(
            name=f"phantom-{FIRST_SEED + number}",
            data_set="phantom-sliding" if sliding else PHANTOM_BREATHING,
            load=lambda number=number: load(number),  # type: ignore[misc]
            origin={
                "phantom_pair": FIRST_SEED + number,
                "amplitude_mm": phantom_amplitude_mm(number),
                "sliding_mm": SLIDING_MM[number] if sliding else 0.0,
                "n_points": PHANTOM_POINTS,
                "code": _code_digest(),
            },
        )
        for number in range(SLIDING_PHANTOMS if sliding else PHANTOM_CASES)
    ]


def deformed_copies(scan: Path, *, sliding: bool = False) -> list[Case]:
    """Deformed copies of one chest CT with simulated acquisition, with points on vessels and in the body.

    A copy has the texture of its original, so errors are smaller than between two real scans.

    Args:
        scan: Path of a chest CT.
        sliding: If True, the lungs slide along the chest wall by `SLIDING_MM`, with the same breathing in all cases;
            otherwise the cases differ in the depth of breathing, `DEFORMED_MM`.

    Returns:
        The cases, not made yet.
    """

    def load(number: int, amplitude_mm: float, sliding_mm: float) -> CaseData:
        from meddift.io import read_volume
        from meddift_lab.synthetic import pick_points, scan_pair

        volume = read_volume(scan)
        pair = scan_pair(
            volume,
            FIRST_SEED + number,
            amplitude_mm=amplitude_mm,
            n_points=DEFORMED_POINTS,
            sliding_mm=sliding_mm,
        )
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

    amounts = [(SLIDING_BREATH_MM, slid) for slid in SLIDING_MM] if sliding else [(deep, 0.0) for deep in DEFORMED_MM]
    return [
        Case(
            name=f"{_stem(scan)}-{f'sliding-{slid:g}' if sliding else f'breathing-{deep:g}'}mm",
            data_set="deformed-sliding" if sliding else "deformed",
            load=lambda number=number, deep=deep, slid=slid: load(number, deep, slid),  # type: ignore[misc]
            origin={
                "scan_pair": _file(scan),
                "seed": FIRST_SEED + number,
                "amplitude_mm": deep,
                "sliding_mm": slid,
                "n_points": DEFORMED_POINTS,
                "code": _code_digest(),
            },
        )
        for number, (deep, slid) in enumerate(amounts)
    ]


def deformed_mr(fixed: Path, moving: Path) -> list[Case]:
    """Pairs from two MR scans of one patient, of equal or different contrast, one of which is deformed.

    Args:
        fixed: Path of the fixed scan.
        moving: Path of the scan to be deformed: the same scan, or another contrast in the same world frame.

    Returns:
        The cases, not made yet.
    """

    def load(number: int) -> CaseData:
        from meddift.io import read_volume
        from meddift_lab.synthetic.contrast import mr_pair

        pair = mr_pair(
            read_volume(fixed), read_volume(moving), FIRST_SEED + number, thickness_mm=MR_THICKNESS_MM[number]
        )
        return CaseData(pair.fixed, pair.moving, (PointSet("body", pair.points, pair.truth),))

    names = _stem(fixed) if fixed == moving else f"{_stem(fixed)}-{_stem(moving)}"
    return [
        Case(
            name=f"{names}-slices-{thin:g}-{thick:g}mm",
            data_set="deformed-mr",
            load=lambda number=number: load(number),  # type: ignore[misc]
            origin={
                "fixed": _file(fixed),
                "moving": _file(moving),
                "seed": FIRST_SEED + number,
                "code": _code_digest(),
            },
        )
        for number, (thin, thick) in enumerate(MR_THICKNESS_MM)
    ]


def mr_like_abdomens(scan: Path) -> list[Case]:
    """MR-like pairs simulated from an abdominal CT, with breathing; see `like_mr`.

    Args:
        scan: Path of an abdominal CT with the liver in its upper half.

    Returns:
        The cases, not made yet.
    """

    def load(number: int) -> CaseData:
        from meddift.io import read_volume
        from meddift_lab.synthetic.contrast import like_mr, mr_pair

        seed = FIRST_SEED + number
        signal = like_mr(read_volume(scan), seed)
        pair = mr_pair(
            signal,
            signal,
            seed,
            breathing_mm=ABDOMEN_MM[number],
            shift_mm=15.0,
            rotation_degrees=3.0,
            local_mm=4.0,
            thickness_mm=(3.0, 4.0),
            noise=0.03,
        )
        return CaseData(pair.fixed, pair.moving, (PointSet("body", pair.points, pair.truth),))

    return [
        Case(
            name=f"{_stem(scan)}-abdomen-{amplitude:g}mm",
            data_set="deformed-abdomen",
            load=lambda number=number: load(number),  # type: ignore[misc]
            origin={
                "scan": _file(scan),
                "seed": FIRST_SEED + number,
                "amplitude_mm": amplitude,
                "code": _code_digest(),
            },
        )
        for number, amplitude in enumerate(ABDOMEN_MM)
    ]


def _stem(scan: Path) -> str:
    """The name of a file without its suffixes."""
    return scan.name.removesuffix(".gz").rpartition(".")[0] or scan.name


def _file(scan: Path) -> dict[str, object]:
    """Path, size and modification time of a file, by which changes are detected."""
    status = scan.stat() if scan.exists() else None
    return {
        "path": str(scan.resolve()),
        "bytes": None if status is None else status.st_size,
        "modified_ns": None if status is None else status.st_mtime_ns,
    }


@cache
def _code_digest() -> str:
    """sha256 of the code that makes pairs; stored scans are made again when it changes."""
    digest = hashlib.sha256()
    for path in sorted(Path(synthetic.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
