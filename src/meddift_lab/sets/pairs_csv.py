"""Pairs of scans with points, listed in a `pairs.csv` with one pair per line.

Columns: `fixed`, `moving` (scans), `fixed_points`, `moving_points`; and if wanted `id`, `kind` (one of the kinds of
points), `truth` (how the true places were found, for the report), `points_space` (lps, ras, voxel, voxel1: for
points files that do not say it), `fixed_mask`, `fixed_labels`, `moving_labels`. Paths count from the folder of the
file. Several lines with one `id` give one pair several kinds.
"""

from __future__ import annotations

import csv
from pathlib import Path

from meddift.errors import MissingFileError, PointsError
from meddift.points import Points
from meddift_lab.running.case import KINDS, Case, CaseData, PointSet
from meddift_lab.sets.learn2reg import _origin

NEEDED = ("fixed", "moving", "fixed_points", "moving_points")
OPTIONAL = ("id", "kind", "truth", "points_space", "fixed_mask", "fixed_labels", "moving_labels")


def pairs_from_csv(path: Path) -> list[Case]:
    """Read the pairs of a `pairs.csv`.

    Args:
        path: Path of the file.

    Returns:
        One case for each pair, not loaded yet.

    Raises:
        MissingFileError: if the file, or a file that it names, does not exist.
        PointsError: if a column is missing or unknown, or a line is invalid; the message names the line.
    """
    if not path.is_file():
        raise MissingFileError(f"there is no file {path}")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        columns = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        lacking = [name for name in NEEDED if name not in columns]
        strange = [name for name in columns if name not in (*NEEDED, *OPTIONAL)]
        if lacking or strange:
            words = [f"lacks the columns {', '.join(lacking)}"] if lacking else []
            words += [f"has unknown columns {', '.join(map(repr, strange))}"] if strange else []
            raise PointsError(f"{path} {' and '.join(words)}; there are {', '.join((*NEEDED, *OPTIONAL))}")
        groups: dict[str, list[tuple[int, dict[str, str]]]] = {}
        for number, raw in enumerate(reader, start=2):
            row = {name: (value or "").strip() for name, value in raw.items() if name is not None}
            if not any(row.values()):
                continue
            for name in NEEDED:
                if not row[name]:
                    raise PointsError(f"{path}, line {number}: {name} is empty")
            groups.setdefault(row.get("id") or f"pair-{number - 1:03d}", []).append((number, row))
    if not groups:
        raise PointsError(f"{path} names no pair")
    return [_case(path, name, rows) for name, rows in groups.items()]


def _case(path: Path, name: str, rows: list[tuple[int, dict[str, str]]]) -> Case:
    """Make a case from the lines of one pair."""
    if not all(letter.isalnum() or letter in "-_. " for letter in name) or name.startswith("."):
        raise PointsError(f"{path}, line {rows[0][0]}: {name!r} cannot be part of a file name; use letters and digits")
    first = rows[0][1]
    files: list[Path] = []
    kinds: list[str] = []
    for number, row in rows:
        if (row["fixed"], row["moving"]) != (first["fixed"], first["moving"]):
            raise PointsError(f"{path}, line {number}: pair {name!r} has other scans than in line {rows[0][0]}")
        kind = row.get("kind") or "landmarks"
        if kind not in KINDS:
            raise PointsError(f"{path}, line {number}: points are of kind {', '.join(KINDS)}; got {kind!r}")
        if kind in kinds:
            raise PointsError(f"{path}, line {number}: pair {name!r} has {kind} already")
        if bool(row.get("fixed_labels")) != bool(row.get("moving_labels")):
            raise PointsError(f"{path}, line {number}: overlap needs both fixed_labels and moving_labels")
        kinds.append(kind)
        for column in (*NEEDED, "fixed_mask", "fixed_labels", "moving_labels"):
            if row.get(column):
                file = path.parent / row[column]
                if not file.exists():
                    raise MissingFileError(f"{path}, line {number}: there is no {file}")
                files.append(file)

    def load() -> CaseData:
        from meddift.io import read_points, read_volume

        scans = path.parent / first["fixed"], path.parent / first["moving"]
        grids = [read_volume(scan).grid for scan in scans]
        sets = []
        for (number, row), kind in zip(rows, kinds, strict=True):
            space = row.get("points_space") or None
            fixed, moving = (
                read_points(path.parent / row[column], space=space, grid=grid)  # type: ignore[arg-type]
                for column, grid in zip(("fixed_points", "moving_points"), grids, strict=True)
            )
            sets.append(_paired(kind, fixed, moving, row.get("truth", ""), f"{path}, line {number}"))
        labels = None
        if first.get("fixed_labels"):
            labels = path.parent / first["fixed_labels"], path.parent / first["moving_labels"]
        mask = path.parent / first["fixed_mask"] if first.get("fixed_mask") else None
        return CaseData(*scans, tuple(sets), mask=mask, labels=labels)

    truths = [row.get("truth", "") for _, row in rows]
    spaces = [row.get("points_space", "") for _, row in rows]
    return Case(name, path.stem, load, {"kinds": kinds, "spaces": spaces, "truths": truths, **_origin(files)})


def _paired(kind: str, fixed: Points, moving: Points, how: str, where: str) -> PointSet:
    """Match fixed and moving points by label if both have the same labels, else by row."""
    from meddift.pipeline.accuracy import align_truth

    try:
        truth = align_truth(fixed, moving)
    except PointsError as error:
        raise PointsError(f"{where}: {error}") from error
    known = ~fixed.missing & ~truth.missing
    return PointSet(kind, fixed.subset(known), truth.subset(known), how)
