"""Tables of an evaluation from its result files: by case, by method, and paired comparisons of methods."""

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

#: Name of the method that the others are compared with, if it has results.
REFERENCE = "meddift"
#: Largest error at which the verdict "ok" counts as right, mm.
OK_WITHIN_MM = 5.0


@dataclass(frozen=True, eq=False)
class CaseRow:
    """Results of one method on one case at points of one kind.

    Attributes:
        case: Name of the case.
        method: Name of the method.
        kind: Kind of points.
        distances: (N,) float64, errors, mm; NaN where no match was found.
        moved: (N,) float64, lengths of the true displacements of the points, mm.
        errors: Statistics of the errors.
        snapped: Statistics of the errors after moving found points to the centres of their voxels.
        ok: (N,) bool, where the verdict of the method is "ok"; None for methods without verdicts.
        result: Content of the result file.
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
    """Reliability of the verdicts of one method over all points of all cases.

    Attributes:
        method: Title of the method.
        n: Number of points.
        ok: Number of points with the verdict "ok".
        ok_beyond: Of these, how many have an error above `OK_WITHIN_MM`.
        ok_max_mm: Largest error of a point with the verdict "ok", mm; None if there is none.
        held_back: Number of points with an error within `OK_WITHIN_MM` but another verdict.
    """

    method: str
    n: int
    ok: int
    ok_beyond: int
    ok_max_mm: float | None
    held_back: int

    @classmethod
    def of(cls, title: str, rows: Sequence[CaseRow]) -> VerdictRow | None:
        """Summarise the rows of one method at points of one kind; None if the method gives no verdicts."""
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
    """Results of one method over all cases at points of one kind. Means are means over cases of means over points.

    Attributes:
        method: Name of the method.
        title: Title of the method.
        kind: Kind of points.
        cases: Number of cases with a result.
        failed: Case -> reason why the method failed on it.
        skipped: Case -> reason why the method could not be run on it.
        mean_mm: Mean TRE with its confidence interval, mm; None if no case has a result.
        median_mm: Mean over cases of the median TRE, mm.
        p95_mm: Mean over cases of the 95th percentile of the TRE, mm.
        max_mm: Largest TRE of all points, mm.
        within: Distance in mm -> mean over cases of the fraction of points, 0 to 1, with a TRE within it.
        tre30_mm: 0.7 quantile of the case means, mm.
        snapped_mm: Mean TRE after moving found points to the centres of their voxels, mm.
        unanswered: Number of points without a match, over all cases.
        regularity: Means over cases of the measures of `Regularity`; None for methods without a field.
        dice: Mean over cases of the mean Dice coefficient over labels; None without label maps.
        hd95_mm: Mean over cases of the mean HD95 over labels, mm; None without label maps.
        find_s: Median over cases of the time of the method itself, s.
        wall_s: Median over cases of the time of the whole process, with imports, reading and measuring, s.
        processor_s: Median over cases of the processor time, user and system, s.
        peak_bytes: Largest peak memory of all cases, bytes.
        threads: The numbers of threads that were allowed.
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
    """All results of an evaluation.

    Attributes:
        cases: Name -> case, in alphabetical order.
        kinds: Kinds of points, in the order of the first case.
        case_rows: One row for each method, case and kind, ordered by method.
        method_rows: One row for each kind and method, ordered by kind.
        comparisons: (kind, method) -> comparison with the reference method, over the cases with results of both.
        reference: Name of the reference method; None if it has no results.
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
    """Read all results in the folder of a run.

    Args:
        folder: Folder that `run_methods` wrote to.

    Raises:
        MissingFileError: if there are no results.
    """
    places = [path.parent for path in folder.glob("cases/*/case.json")]
    cases = {case.name: case for case in sorted(map(restore_case, places), key=lambda case: case.name)}
    results: dict[str, dict[str, Mapping[str, Any]]] = {}
    for path in sorted(folder.glob("results/*/*.json")):
        result = read_result(path)
        # Ignore results for scans that have changed since.
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
    """One row for each kind of points; none if the method failed."""
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
    """Summarise the results of one method at points of one kind."""
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
    """Compare every method with the reference, paired by case."""
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
