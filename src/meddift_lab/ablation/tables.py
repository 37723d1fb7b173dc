"""Tables of the results of an ablation, and tests of the paper's two claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.pipeline.accuracy import Errors
from meddift_lab.ablation.run import file_name, thinned_set
from meddift_lab.ablation.variants import NETWORK_LEVELS, SWEEPS, Variant, make_variants
from meddift_lab.metrics.statistics import Interval, PairedComparison, compare_paired, mean_over_cases
from meddift_lab.metrics.tre import target_errors
from meddift_lab.running.case import StoredCase, restore_case
from meddift_lab.running.runner import read_result


@dataclass(frozen=True, eq=False)
class AblationRow:
    """Results of one variant over all cases, at points of one kind.

    Attributes:
        base: Name of the base.
        sweep: Name of the sweep, the choice that is varied.
        label: Label of the variant.
        kind: Kind of points.
        options: All options that differ from the preset.
        case_means: Case -> mean TRE, mm; a point without a match counts as not moved (see `unanswered`).
        mean_mm: Mean of the case means with its confidence interval, mm.
        median_mm: Mean over cases of the median TRE, mm.
        within_5mm: Mean over cases of the fraction, 0 to 1, of points with a TRE within 5 mm.
        unanswered: Number of points without a match, over all cases.
        seconds: Mean time over cases, s; includes feature extraction only where features were not cached, so it
            does not measure speed.
    """

    base: str
    sweep: str
    label: str
    kind: str
    options: Mapping[str, Any]
    case_means: Mapping[str, float]
    mean_mm: Interval
    median_mm: float
    within_5mm: float
    unanswered: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim of the paper and its test.

    Attributes:
        base: Name of the base.
        words: The claim in words.
        first: Label of the variant that the claim says is better.
        second: Label of the variant it is compared with.
        means: Mean TRE of the first and the second, mm.
        compared: TRE of the first minus that of the second, paired over cases.
    """

    base: str
    words: str
    first: str
    second: str
    means: tuple[float, float]
    compared: PairedComparison

    @property
    def verdict(self) -> str:
        """The result of the test in words; it is decisive only if the p value over cases is below 0.05."""
        difference, p_value = self.compared.mean_difference, self.compared.p_value
        if difference == 0:
            return "makes no difference"
        words = "holds" if difference < 0 else "does not hold: the opposite is true"
        if p_value is not None and p_value < 0.05:
            return words
        tendency = "better" if difference < 0 else "worse"
        return f"not decided by {self.compared.n} cases, {tendency} in the mean"


@dataclass(frozen=True, eq=False)
class AblationTables:
    """All results of an ablation.

    Attributes:
        rows: Rows ordered by base and sweep, in the order in which they are run.
        claims: The paper's claims with their tests.
        levels: Names of the single levels, coarse to fine.
    """

    rows: tuple[AblationRow, ...]
    claims: tuple[Claim, ...]
    levels: tuple[str, ...]

    def sweep(self, base: str, name: str, kind: str) -> list[AblationRow]:
        """The rows of one base, sweep and kind of points."""
        return [row for row in self.rows if (row.base, row.sweep, row.kind) == (base, name, kind)]


def collect_ablation(folder: Path) -> AblationTables | None:
    """Read the results that `run_ablation` wrote to a folder; None if there are none."""
    from meddift.models import find_spec

    cases = {path.parent.name: restore_case(path.parent) for path in sorted(folder.glob("cases/*/case.json"))}
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("ablation/*/*/*.json")):
        result = read_result(path)
        if result is None or result["status"] != "ok" or result["case"] not in cases:
            continue
        if result["case_digest"] == cases[result["case"]].digest:
            groups.setdefault((result["base"], result["sweep"], result["label"]), []).append(result)
    if not groups:
        return None
    rows = [row for results in groups.values() for row in _rows(cases, results)]
    order: dict[tuple[str, str], int] = {}
    spec = find_spec(next(iter(groups.values()))[0]["model"])
    for base in ("default", "search"):
        for number, variant in enumerate(make_variants(base, spec)):
            order[base, file_name(variant)] = number
    sweeps = ["base", *SWEEPS]
    rows.sort(
        key=lambda row: (
            row.base,
            sweeps.index(row.sweep) if row.sweep in sweeps else len(sweeps),
            order.get((row.base, _folder(row)), 999),
            row.label,
            row.kind,
        )
    )
    levels = (*spec.defaults.levels, *spec.defaults.extra_levels)
    return AblationTables(tuple(rows), tuple(_claims(rows, spec.defaults.levels, levels)), levels)


def _folder(row: AblationRow) -> str:
    return file_name(Variant(row.sweep, row.label, {}))


def _rows(cases: Mapping[str, StoredCase], results: Sequence[Mapping[str, Any]]) -> list[AblationRow]:
    """One row for each kind of points."""
    errors: dict[str, dict[str, Errors]] = {}
    unanswered: dict[str, int] = {}
    for result in results:
        case = cases[result["case"]]
        sets = [thinned_set(points, n) for points, n in zip(case.sets, result["points"], strict=True)]
        case = replace(case, sets=tuple(sets))
        positions = np.array([[np.nan] * 3 if p is None else p for p in result["positions_ras_mm"]], dtype=np.float64)
        missing: NDArray[np.bool_] = np.asarray(np.isnan(positions).any(axis=1))
        # Variants differ in how many points they leave unmatched: omitting these points would favour such variants.
        filled = np.where(missing[:, None], case.asked.positions, positions)
        ends = np.cumsum([len(points.fixed) for points in case.sets])[:-1]
        for points, found, lacking in zip(case.sets, case.split(filled), np.split(missing, ends), strict=True):
            errors.setdefault(points.kind, {})[case.name] = Errors.of(target_errors(found, points.moving))
            unanswered[points.kind] = unanswered.get(points.kind, 0) + int(lacking.sum())
    some = results[0]
    rows = []
    for kind, by_case in errors.items():
        means = {name: float(e.mean) for name, e in by_case.items() if e.mean is not None}
        rows.append(
            AblationRow(
                base=some["base"],
                sweep=some["sweep"],
                label=some["label"],
                kind=kind,
                options=some["options"],
                case_means=means,
                mean_mm=mean_over_cases(list(means.values())),
                median_mm=float(np.mean([e.median for e in by_case.values() if e.median is not None])),
                within_5mm=float(np.mean([dict(e.within)[5.0] for e in by_case.values()])),
                unanswered=unanswered[kind],
                seconds=float(np.mean([r["seconds"] for r in results])),
            )
        )
    return rows


def _claims(rows: Sequence[AblationRow], network: Sequence[str], levels: Sequence[str]) -> list[Claim]:
    """Test the claims that several levels are better than one, and that a little noise helps."""
    found = []
    for base, kind in dict.fromkeys((row.base, row.kind) for row in rows):
        mine = [row for row in rows if (row.base, row.kind) == (base, kind)]
        singles = [row for row in mine if row.sweep == "levels" and row.label in network]
        together = [row for row in mine if row.sweep == "levels" and row.label == NETWORK_LEVELS]
        if singles and together:
            best = min(singles, key=lambda row: row.mean_mm.mean)
            found.append(_claim(base, f"several levels beat the best single one ({kind})", together[0], best))
        noisy = [row for row in mine if row.sweep == "noise" and row.label != "none"]
        clean = [row for row in mine if row.sweep == "noise" and row.label == "none"]
        if noisy and clean:
            best = min(noisy, key=lambda row: row.mean_mm.mean)
            found.append(
                _claim(base, f"a little noise helps ({kind}; the best of {len(noisy)} strengths)", best, clean[0])
            )
    return [claim for claim in found if claim is not None]


def _claim(base: str, words: str, first: AblationRow, second: AblationRow) -> Claim | None:
    shared = sorted(first.case_means.keys() & second.case_means.keys())
    if not shared:
        return None
    one, other = [first.case_means[c] for c in shared], [second.case_means[c] for c in shared]
    means = float(np.mean(one)), float(np.mean(other))
    return Claim(base, words, first.label, second.label, means, compare_paired(one, other))
