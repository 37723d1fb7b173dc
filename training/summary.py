"""From distances to figures with intervals, and from figures to tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contestants import AS_USED

Floats = NDArray[np.float64]

RESAMPLES = 1000
KIND_WORDS = {"vessels": "points on vessels", "body": "points anywhere in the body", "landmarks": "landmarks"}
SETTINGS = {
    "global": "global search, no prior, whole voxels of the 2 mm grid",
    "prior": "search within 25 mm of the truth displaced at random by up to 12 mm, whole voxels",
    "default": "`default` preset, end to end: its own prior, refined between voxels",
}


def _answered(statistic: Callable[[Floats], float]) -> Callable[[Floats], float]:
    """A statistic over the points that got an answer."""

    def of(errors: Floats) -> float:
        answered = errors[~np.isnan(errors)]
        return float(statistic(answered)) if len(answered) else float("nan")

    return of


def _within(limit: float) -> Callable[[Floats], float]:
    """Percentage of all points; one without an answer is not within anything."""
    return lambda errors: 100.0 * float(np.mean(errors <= limit))


STATISTICS: dict[str, Callable[[Floats], float]] = {
    "median": _answered(np.median),
    "mean": _answered(np.mean),
    "p95": _answered(lambda errors: np.percentile(errors, 95)),
    "within 2 mm": _within(2.0),
    "within 5 mm": _within(5.0),
    "within 10 mm": _within(10.0),
}


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def resampled_rows(sizes: Sequence[int], *, seed: int) -> list[NDArray[np.int64]]:
    """Rows of the points of several pairs laid end to end, drawn anew: pairs with replacement, then points in each.

    With one pair only its points are drawn anew. The same rows serve all contestants, so that differences are
    those on the same points.
    """
    generator = np.random.default_rng(seed)
    first = np.concatenate([[0], np.cumsum(sizes)])
    drawn = []
    for _ in range(RESAMPLES):
        pairs = generator.integers(len(sizes), size=len(sizes)) if len(sizes) > 1 else [0]
        drawn.append(np.concatenate([first[p] + generator.integers(sizes[p], size=sizes[p]) for p in pairs]))
    return drawn


def figure(statistic: Callable[[Floats], float], errors: Floats, rows: list[NDArray[np.int64]]) -> Figure:
    """A statistic and its percentile bootstrap interval."""
    values = np.array([statistic(errors[r]) for r in rows])
    values = values[~np.isnan(values)]
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return Figure(statistic(errors), float(low), float(high))


def summarise(parts: list[dict[str, Any]], *, seed: int) -> list[dict[str, Any]]:
    """One row for each pair (and all pairs of a group), kind of points, setting and contestant.

    Args:
        parts: One result a pair and contestant, see `evaluate.py`; in the order of the table.
        seed: Of the resampling.
    """
    names = list(dict.fromkeys(part["contestant"] for part in parts))
    rows: list[dict[str, Any]] = []
    groups = {f"all {g}": [p for p in parts if p["group"] == g] for g in dict.fromkeys(p["group"] for p in parts)}
    groups |= {pair: [p for p in parts if p["pair"] == pair] for pair in dict.fromkeys(p["pair"] for p in parts)}
    for group, members in groups.items():
        pairs = list(dict.fromkeys(p["pair"] for p in members))
        for setting in SETTINGS:
            for kind in sorted({k for p in members for k in p["kinds"]}, reverse=True):
                reference: Floats | None = None
                drawn: list[NDArray[np.int64]] | None = None
                for name in names:
                    mine = {p["pair"]: p for p in members if p["contestant"] == name and setting in p["errors_mm"]}
                    if list(mine) != pairs:
                        continue
                    per_pair = [_of_kind(mine[pair], setting, kind) for pair in pairs]
                    per_pair = [errors for errors in per_pair if len(errors)]
                    if not per_pair:
                        continue
                    errors = np.concatenate(per_pair)
                    drawn = drawn or resampled_rows([len(e) for e in per_pair], seed=seed)
                    row: dict[str, Any] = {
                        "pairs": group, "kind": kind, "setting": setting, "contestant": name,
                        "n": len(errors), "answered": int((~np.isnan(errors)).sum()),
                    }  # fmt: skip
                    row["figures"] = {key: vars(figure(stat, errors, drawn)) for key, stat in STATISTICS.items()}
                    reference = errors if reference is None else reference
                    # Found by the first contestant minus found by this one, on the same points.
                    ahead = 100.0 * ((reference <= 5).astype(float) - (errors <= 5))
                    row["figures"]["first is ahead"] = vars(figure(lambda e: float(e.mean()), ahead, drawn))
                    row["figures"]["median behind first"] = vars(_median_behind(reference, errors, drawn))
                    row["verdicts"] = _verdicts([mine[pair] for pair in pairs], kind) if setting == "default" else None
                    rows.append(row)
    return rows


def _median_behind(first: Floats, errors: Floats, rows: list[NDArray[np.int64]]) -> Figure:
    """Median of these errors minus that of the first contestant's; the interval is that of the difference."""
    median = STATISTICS["median"]
    low, high = np.nanpercentile([median(errors[r]) - median(first[r]) for r in rows], [2.5, 97.5])
    return Figure(median(errors) - median(first), float(low), float(high))


def _of_kind(part: dict[str, Any], setting: str, kind: str) -> Floats:
    errors = np.array([np.nan if e is None else e for e in part["errors_mm"][setting]], dtype=np.float64)
    return errors[[k == kind for k in part["kinds"]]]


def _verdicts(parts: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """What was said about points, and whether it was right."""
    errors = np.concatenate([_of_kind(part, "default", kind) for part in parts])
    ok = np.concatenate([np.array([v == "ok" for v, k in _judged(part) if k == kind], dtype=bool) for part in parts])
    sure = errors[ok]
    return {
        "ok_percent": 100.0 * float(ok.mean()),
        "ok_median_mm": float(np.median(sure)) if len(sure) else None,
        "ok_p95_mm": float(np.percentile(sure, 95)) if len(sure) else None,
        "ok_max_mm": float(sure.max()) if len(sure) else None,
        "ok_beyond_5mm": int((sure > 5).sum()),
        "ok_beyond_10mm": int((sure > 10).sum()),
        "absent": sum(part["absent"]["n"] for part in parts),
        "absent_called_ok": sum(part["absent"]["called_ok"] for part in parts),
    }


def _judged(part: dict[str, Any]) -> Iterable[tuple[str, str]]:
    return zip(part["verdicts"], part["kinds"], strict=True)


def markdown(rows: list[dict[str, Any]], *, groups: Sequence[str] | None = None) -> str:
    """Tables of some groups of pairs (None = all), without a heading of their own."""
    lines: list[str] = []
    shown = groups or list(dict.fromkeys(row["pairs"] for row in rows))
    for group in shown:
        for setting, words in SETTINGS.items():
            for kind in dict.fromkeys(r["kind"] for r in rows if r["pairs"] == group):
                chosen = [r for r in rows if (r["pairs"], r["setting"], r["kind"]) == (group, setting, kind)]
                if chosen:
                    lines += _table(chosen, f"{group}, {KIND_WORDS.get(kind, kind)}: {words}")
    return "\n".join(lines)


def decisive(rows: list[dict[str, Any]]) -> str:
    """The figures that decide, one table a group of pairs: a line a contestant, vessels and body apart."""
    lines: list[str] = []
    columns = (
        ("global", "median", "global: median mm"),
        ("global", "within 10 mm", "≤ 10 mm %"),
        ("prior", "median", "25 mm prior: median mm"),
        ("prior", "within 5 mm", "≤ 5 mm %"),
        ("default", "median", "`default`: median mm"),
        ("default", "mean", "mean mm"),
        ("default", "within 5 mm", "≤ 5 mm %"),
    )
    groups = [g for g in dict.fromkeys(row["pairs"] for row in rows) if g.startswith("all ")]
    for group in groups:
        for kind in dict.fromkeys(r["kind"] for r in rows if r["pairs"] == group):
            mine = {(r["contestant"], r["setting"]): r for r in rows if (r["pairs"], r["kind"]) == (group, kind)}
            names = [name for name, setting in mine if setting == "global"]
            count = next(iter(mine.values()))["n"]
            lines += [
                f"**{group[0].upper()}{group[1:]}, {KIND_WORDS.get(kind, kind)}** (n = {count})",
                "",
                "| | " + " | ".join(words for _, _, words in columns) + " |",
                "|---" * (len(columns) + 1) + "|",
            ]
            for name in names:
                cells = []
                for setting, statistic, _ in columns:
                    # A preset belongs to the descriptors that it is built on.
                    key = (name if setting != "default" else _preset_of(name), setting)
                    digits = 0 if statistic.startswith("within") else 2
                    cells.append(_shown(mine[key]["figures"][statistic], digits=digits) if key in mine else "")
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
            lines.append("")
    return "\n".join(lines)


def _preset_of(name: str) -> str:
    """The contestant that matches end to end with the descriptors of another."""
    for words in (AS_USED, ", whitened", ", raw"):
        name = name.removesuffix(words)
    return f"{name}: default preset"


def folded(rows: list[dict[str, Any]]) -> str:
    """All tables of the pooled pairs, folded away."""
    groups = [g for g in dict.fromkeys(row["pairs"] for row in rows) if g.startswith("all ")]
    tables = markdown(rows, groups=groups)
    title = "All figures, with means and tails, and what verdicts were worth"
    return f"<details><summary>{title}</summary>\n\n{tables}\n</details>\n"


def _table(rows: list[dict[str, Any]], title: str) -> list[str]:
    default = rows[0]["setting"] == "default"
    first = rows[0]["contestant"]
    lines = [
        f"**{title[0].upper()}{title[1:]}** (n = {rows[0]['n']})",
        "",
        f"| | median mm | mean mm | p95 mm | ≤ 2 mm % | ≤ 5 mm % | ≤ 10 mm % | median behind {first}, mm "
        "| behind at 5 mm, points |" + (" no answer |" if default else ""),
        "|---|---|---|---|---|---|---|---|---|" + ("---|" if default else ""),
    ]
    for row in rows:
        f = row["figures"]
        cells = [_shown(f[key], digits=1 if key in ("mean", "p95") else 2) for key in ("median", "mean", "p95")]
        cells += [_shown(f[f"within {limit} mm"], digits=0) for limit in (2, 5, 10)]
        cells.append("" if row is rows[0] else _shown(f["median behind first"], digits=2))
        cells.append("" if row is rows[0] else _shown(f["first is ahead"], digits=0))
        if default:
            cells.append(str(row["n"] - row["answered"]))
        lines.append(f"| {row['contestant']} | " + " | ".join(cells) + " |")
    lines.append("")
    if default:
        lines += [
            "| verdicts | ok % | of the ok: median mm | p95 mm | max mm | beyond 5 mm | beyond 10 mm "
            "| without counterpart, called ok |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            v = row["verdicts"]
            number = [_plain(v[f"ok_{name}_mm"]) for name in ("median", "p95", "max")]
            lines.append(
                f"| {row['contestant']} | {v['ok_percent']:.0f} | {' | '.join(number)} | {v['ok_beyond_5mm']} "
                f"| {v['ok_beyond_10mm']} | {v['absent_called_ok']} of {v['absent']} |"
            )
        lines.append("")
    return lines


def _plain(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.2f}"


def _shown(f: dict[str, float], *, digits: int) -> str:
    return f"{f['value']:.{digits}f} [{f['low']:.{digits}f}, {f['high']:.{digits}f}]"


def as_csv(rows: list[dict[str, Any]]) -> str:
    """One line a figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["pairs", "kind", "setting", "contestant", "n", "answered", "statistic", "value", "low", "high"])
    for row in rows:
        head = [row[name] for name in ("pairs", "kind", "setting", "contestant", "n", "answered")]
        for name, f in row["figures"].items():
            writer.writerow([*head, name, *(f"{f[key]:.4f}" for key in ("value", "low", "high"))])
    return text.getvalue()


def put_between_markers(path: Path, name: str, block: str) -> None:
    """Replace what stands between `<!-- name: start -->` and `<!-- name: end -->` in a Markdown file.

    Raises:
        SystemExit: if the file has no such markers.
    """
    text = path.read_text(encoding="utf-8")
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise SystemExit(f"{path} has no place for this: put {start} and {end} into it, once each")
    before, rest = text.split(start)
    _, after = rest.split(end)
    path.write_text(f"{before}{start}{block}{end}{after}", encoding="utf-8")
