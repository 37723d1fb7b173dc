"""From result files to tables: one row a case, one row a method, and methods compared in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import MissingFileError
from meddift.pipeline.accuracy import Errors
from meddift_lab.methods.registry import METHODS
from meddift_lab.metrics.statistics import Interval, PairedComparison, compare_paired, mean_over_cases, tre30
from meddift_lab.metrics.tre import Floats, snapped_to_voxels, target_errors
from meddift_lab.running.case import StoredCase, restore_case
from meddift_lab.running.runner import read_result

#: The method that the others are compared with, if it is there.
REFERENCE = "meddift"
#: A point that is called "ok" should be at least this close, mm.
OK_WITHIN_MM = 5.0


@dataclass(frozen=True, eq=False)
class CaseRow:
    """One method on one case at points of one kind.

    Attributes:
        case: Name of the case.
        method: Name of the method.
        kind: Of the points.
        distances: (N,) mm; NaN without an answer.
        moved: (N,) mm, how far the points really move.
        errors: Of the answers as they are.
        snapped: Of the answers moved to the centres of their voxels.
        ok: (N,) bool, where the method calls its answer "ok"; None for methods that give no verdict.
        result: The whole result file.
    """

    case: str
    method: str
    kind: str
    distances: Floats
    moved: Floats
    errors: Errors
    snapped: Errors
    ok: NDArray[np.bool_] | None
    result: Mapping[str, Any]


@dataclass(frozen=True)
class VerdictRow:
    """What the verdicts of one method are worth, over all points of all cases.

    Attributes:
        method: In words.
        n: Number of points.
        ok: How many of them are called "ok".
        ok_beyond: Of those, how many are more than 5 mm off.
        ok_max_mm: Largest error of a point called "ok", mm; None if there is none.
        held_back: How many points are within 5 mm but not called "ok".
    """

    method: str
    n: int
    ok: int
    ok_beyond: int
    ok_max_mm: float | None
    held_back: int

    @classmethod
    def of(cls, title: str, rows: Sequence[CaseRow]) -> VerdictRow | None:
        """Sum up the rows of one method at points of one kind; None if it gives no verdict."""
        judged = [(row.distances, row.ok) for row in rows if row.ok is not None]
        if not judged:
            return None
        distances = np.concatenate([d for d, _ in judged])
        ok = np.concatenate([o for _, o in judged])
        near = distances <= OK_WITHIN_MM
        largest = float(distances[ok].max()) if ok.any() else None
        return cls(title, len(ok), int(ok.sum()), int((ok & ~near).sum()), largest, int((near & ~ok).sum()))


@dataclass(frozen=True, eq=False)
class MethodRow:
    """One method over all cases at points of one kind. Means are means over cases of means over points.

    Attributes:
        method: Its name.
        title: In words.
        kind: Of the points.
        cases: How many gave a result.
        failed: Case -> why it failed.
        skipped: Case -> why it could not even be tried.
        mean_mm: Mean TRE with its interval; None if no case gave a result.
        median_mm: Mean over cases of the median.
        p95_mm: Mean over cases of the 95th percentile.
        max_mm: Largest of all.
        within: Distance in mm -> mean over cases of the share of points.
        tre30_mm: 0.7 quantile of the case means.
        snapped_mm: Mean TRE of answers in whole voxels.
        unanswered: Number of points without an answer, over all cases.
        regularity: Means over cases; None for methods without a field.
        dice: Mean over cases of the mean over labels; None without label maps.
        hd95_mm: Likewise.
        find_s: Median over cases of the seconds of the method itself.
        wall_s: Of the whole process, with loading of libraries, reading and measuring.
        processor_s: Of processor time, user and system.
        peak_bytes: Largest of all cases.
        threads: How many threads were allowed.
    """

    method: str
    title: str
    kind: str
    cases: int
    failed: Mapping[str, str]
    skipped: Mapping[str, str]
    mean_mm: Interval | None
    median_mm: float | None
    p95_mm: float | None
    max_mm: float | None
    within: Mapping[float, float]
    tre30_mm: float | None
    snapped_mm: float | None
    unanswered: int
    regularity: Mapping[str, float] | None
    dice: float | None
    hd95_mm: float | None
    find_s: float | None
    wall_s: float | None
    processor_s: float | None
    peak_bytes: int | None
    threads: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Tables:
    """All that an evaluation found.

    Attributes:
        cases: By name, in alphabetical order.
        kinds: Kinds of points, in the order of the first case.
        case_rows: Method by method.
        method_rows: Kind by kind.
        comparisons: (kind, method) -> against the reference method, over the cases that both have.
        reference: Name of the reference method; None if it is not there.
    """

    cases: Mapping[str, StoredCase]
    kinds: tuple[str, ...]
    case_rows: tuple[CaseRow, ...]
    method_rows: tuple[MethodRow, ...]
    comparisons: Mapping[tuple[str, str], PairedComparison]
    reference: str | None

    def rows(self, kind: str, method: str) -> list[CaseRow]:
        """Rows of one method at points of one kind."""
        return [row for row in self.case_rows if (row.kind, row.method) == (kind, method)]


def collect(folder: Path) -> Tables:
    """Read the folder of a run.

    Args:
        folder: What `run_methods` wrote to.

    Raises:
        MissingFileError: if there are no results.
    """
    places = [path.parent for path in folder.glob("cases/*/case.json")]
    cases = {case.name: case for case in sorted(map(restore_case, places), key=lambda case: case.name)}
    results: dict[str, dict[str, Mapping[str, Any]]] = {}
    for path in sorted(folder.glob("results/*/*.json")):
        result = read_result(path)
        # Results of scans that have been made anew since then do not count.
        if result is not None and result["case"] in cases and result["case_digest"] == cases[result["case"]].digest:
            results.setdefault(result["method"], {})[result["case"]] = result
    if not results:
        raise MissingFileError(f"{folder} holds no results; make some with meddift evaluate run --out {folder}")
    order = [method.name for method in METHODS if method.name in results]
    order += [name for name in results if name not in order]
    kinds = tuple(dict.fromkeys(points.kind for case in cases.values() for points in case.sets))
    case_rows = [
        row
        for name in order
        for case in cases
        if case in results[name]
        for row in _case_rows(cases[case], results[name][case])
    ]
    method_rows = [
        _method_row(kind, results[name], [row for row in case_rows if (row.kind, row.method) == (kind, name)])
        for kind in kinds
        for name in order
    ]
    reference = REFERENCE if REFERENCE in results else None
    return Tables(
        cases=cases,
        kinds=kinds,
        case_rows=tuple(case_rows),
        method_rows=tuple(method_rows),
        comparisons={} if reference is None else _comparisons(kinds, order, case_rows, reference),
        reference=reference,
    )


def _case_rows(case: StoredCase, result: Mapping[str, Any]) -> list[CaseRow]:
    """One row a kind of points; none if the method failed."""
    if result["status"] != "ok":
        return []
    positions = np.array(
        [[np.nan] * 3 if place is None else place for place in result["positions_ras_mm"]], dtype=np.float64
    )
    verdicts = result["details"].get("verdict")
    ends = np.cumsum([len(points.fixed) for points in case.sets])[:-1]
    called = [None] * len(case.sets) if verdicts is None else np.split(np.array(verdicts) == "ok", ends)
    rows = []
    for points, found, ok in zip(case.sets, case.split(positions), called, strict=True):
        distances = target_errors(found, points.moving)
        snapped = target_errors(snapped_to_voxels(found, case.grids[1]), points.moving)
        rows.append(
            CaseRow(
                case=case.name,
                method=result["method"],
                kind=points.kind,
                distances=distances,
                moved=np.asarray(np.linalg.norm(points.moving.positions - points.fixed.positions, axis=1)),
                errors=Errors.of(distances),
                snapped=Errors.of(snapped),
                ok=ok,
                result=result,
            )
        )
    return rows


def _method_row(kind: str, results: Mapping[str, Mapping[str, Any]], rows: Sequence[CaseRow]) -> MethodRow:
    """Sum up one method."""
    some = next(iter(results.values()))
    answered = [row for row in rows if row.errors.mean is not None]
    means = [row.errors.mean for row in answered if row.errors.mean is not None]
    fields = [row.result["regularity"] for row in rows if row.result["regularity"]]
    overlaps = [row.result["overlap"] for row in rows if row.result["overlap"]]
    distances = [[o["hd95_mm"] for o in case if o["hd95_mm"] is not None] for case in overlaps]
    resources = [row.result["resources"] for row in rows]
    peaks = [r["peak_bytes"] for r in resources if r["peak_bytes"] is not None]
    processor = [r["user_s"] + r["system_s"] for r in resources if r["user_s"] is not None]
    return MethodRow(
        method=some["method"],
        title=some["title"],
        kind=kind,
        cases=len(rows),
        failed={case: str(r["reason"]) for case, r in sorted(results.items()) if r["status"] == "failed"},
        skipped={case: str(r["reason"]) for case, r in sorted(results.items()) if r["status"] == "skipped"},
        mean_mm=mean_over_cases(means) if means else None,
        median_mm=_mean([row.errors.median for row in answered]),
        p95_mm=_mean([row.errors.p95 for row in answered]),
        max_mm=max((row.errors.max for row in answered if row.errors.max is not None), default=None),
        within={
            limit: float(np.mean([dict(row.errors.within)[limit] for row in rows]))
            for limit, _ in (rows[0].errors.within if rows else ())
        },
        tre30_mm=tre30(means) if means else None,
        snapped_mm=_mean([row.snapped.mean for row in answered]),
        unanswered=sum(row.errors.unanswered for row in rows),
        regularity={
            name: float(np.mean([field[name] for field in fields])) for name in ("sdlogj", "sdlogj_plus3", "folding")
        }
        if fields
        else None,
        dice=_mean([float(np.mean([o["dice"] for o in case])) for case in overlaps]),
        hd95_mm=_mean([float(np.mean(case)) for case in distances if case]),
        find_s=median(row.result["stages"]["seconds"]["find"] for row in rows) if rows else None,
        wall_s=median(r["wall_s"] for r in resources) if resources else None,
        processor_s=median(processor) if processor else None,
        peak_bytes=max(peaks, default=None),
        threads=tuple(sorted({row.result["threads"] for row in rows})),
    )


def _comparisons(
    kinds: Sequence[str], order: Sequence[str], rows: Sequence[CaseRow], reference: str
) -> dict[tuple[str, str], PairedComparison]:
    """Every method against the reference, case by case."""
    means: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if row.errors.mean is not None:
            means.setdefault((row.kind, row.method), {})[row.case] = row.errors.mean
    compared = {}
    for kind in kinds:
        ours = means.get((kind, reference), {})
        for name in order:
            theirs = means.get((kind, name), {})
            shared = sorted(ours.keys() & theirs.keys())
            if name != reference and shared:
                compared[kind, name] = compare_paired([theirs[c] for c in shared], [ours[c] for c in shared])
    return compared


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
