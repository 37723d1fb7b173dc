"""Pairs of scans with exact truth, and the points that are looked for in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import NoCorrespondenceError
from meddift.io import read_volume
from meddift.points import Points
from meddift.volume import Volume
from meddift_lab.running.case import CaseData
from meddift_lab.sets.pairs_csv import pairs_from_csv
from meddift_lab.synthetic import SyntheticPair, phantom_pair, pick_points, scan_pair

#: Scans that no training has seen.
VALIDATION = ("LIDC-0314", "CMB-CRC")
KINDS = ("vessels", "body")
#: Seeds of phantoms here; the trainer draws its own from 0 on.
FIRST_PHANTOM = 9001
#: How far from the truth a point is expected at most, mm: uniform in a ball.
PRIOR_ERROR_MM = 12.0

#: Options of `scan_pair` for pairs on which descriptors differ more: deeper breath, more bending, thick noisy slices.
HARDER = {
    "amplitude_mm": 40.0,
    "local_mm": 7.0,
    "rotation_degrees": 8.0,
    "thickness_mm": 5.0,
    "noise_std_hu": 45.0,
}


@dataclass(frozen=True, eq=False)
class RealPair:
    """Two scans of one patient with points that somebody else has put into correspondence.

    Attributes:
        fixed: First scan.
        moving: Second scan.
        points: On the fixed scan.
        truth: The same points on the moving one.
        seed: 0: nothing about it was drawn.
    """

    fixed: Volume
    moving: Volume
    points: Points
    truth: Points
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Task:
    """A pair and its points.

    Attributes:
        pair: The two scans.
        points: On the fixed scan; all have their counterpart in the moving one.
        truth: (N, 3) float64, world RAS mm, on the moving scan.
        kinds: N of `KINDS`, or all "landmarks" for a real pair.
        expected: (N, 3) float64, the truth displaced at random by up to `PRIOR_ERROR_MM`.
        absent: Points of the fixed scan whose counterpart lies outside the moving scan.
    """

    pair: SyntheticPair | RealPair
    points: Points
    truth: NDArray[np.float64]
    kinds: tuple[str, ...]
    expected: NDArray[np.float64]
    absent: Points


@dataclass(frozen=True)
class Recipe:
    """A pair that has not been made yet.

    Attributes:
        name: Of the pair.
        group: What is pooled: "scans", "harder scans", "phantoms", "real pairs, one contrast" or "..., two contrasts".
        make: Makes it.
    """

    name: str
    group: str
    make: Callable[[], SyntheticPair | RealPair]


class _Scan:
    """A validation scan, read once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def volume(self) -> Volume:
        return read_volume(self.path)


def list_pairs(
    scans: Path | None, *, seeds: int, phantoms: int, harder: int = 0, real: Path | None = None
) -> Iterator[Recipe]:
    """Pairs of the validation scans found in a folder, `harder` harder ones of each, phantoms, then real pairs."""
    for word in VALIDATION if scans is not None else ():
        paths = sorted(path for path in scans.glob(f"*{word}*.nii.gz") if path.is_file())
        if not paths:
            raise SystemExit(f"no scan named *{word}*.nii.gz in {scans}")
        scan = _Scan(paths[0])
        for group, count, options in (("scans", seeds, {}), ("harder scans", harder, HARDER)):
            for seed in range(1, count + 1):

                def make(
                    scan: _Scan = scan, seed: int = seed, word: str = word, options: dict[str, float] = options
                ) -> SyntheticPair:
                    return scan_pair(scan.volume, seed, n_points=1, name=word, **options)

                yield Recipe(f"{word}-harder-{seed}" if options else f"{word}-{seed}", group, make)
    for seed in range(FIRST_PHANTOM, FIRST_PHANTOM + phantoms):
        yield Recipe(f"phantom-{seed}", "phantoms", lambda seed=seed: phantom_pair(seed, n_points=1))
    if real is not None:
        yield from list_real_pairs(real)


def list_real_pairs(table: Path) -> Iterator[Recipe]:
    """The pairs of a `pairs.csv`; scans are named ..._CONTRAST, which tells pairs across contrasts from others."""
    for case in pairs_from_csv(table):
        data = case.load()
        scans = (data.fixed, data.moving)
        contrasts = {path.name.split(".")[0].rsplit("_", 1)[-1].lower() for path in scans}

        def make(scans: tuple[Path, Path] = scans, data: CaseData = data) -> RealPair:
            (points,) = data.sets
            return RealPair(*(read_volume(path) for path in scans), points.fixed, points.moving)

        yield Recipe(case.name, f"real pairs, {'one contrast' if len(contrasts) == 1 else 'two contrasts'}", make)


def make_task(pair: SyntheticPair | RealPair, *, count: int, seed: int) -> Task:
    """Choose points in the fixed scan: `count` of each kind, and some that the moving scan does not show.

    Of a real pair all points are taken that it comes with.
    """
    if isinstance(pair, RealPair):
        truth = pair.truth.positions
        kinds = ("landmarks",) * len(truth)
        nothing = Points(np.empty((0, 3)), ())
        return Task(pair, pair.points, truth, kinds, _displaced(truth, seed), nothing)
    positions, labels, kinds, outside = [], [], [], []
    for number, kind in enumerate(KINDS):
        try:
            candidates = pick_points(pair.fixed, 2 * count, kind=kind, seed=1000 * seed + number)
        except NoCorrespondenceError:
            continue
        truth = pair.transform.apply(candidates.positions)
        seen = pair.moving.grid.contains(truth, margin_mm=2) & pair.fixed.grid.contains(
            candidates.positions, margin_mm=2
        )
        rows = np.flatnonzero(seen)
        # The most distinctive come first; a random choice stands for all of them.
        rows = np.sort(np.random.default_rng([seed, number]).permutation(rows)[:count])
        positions.append(candidates.positions[rows])
        labels += [candidates.labels[row] for row in rows]
        kinds += [kind] * len(rows)
        outside.append(candidates.positions[~pair.moving.grid.contains(truth, margin_mm=-10)][: count // 2])
    points = Points(np.concatenate(positions), tuple(labels))
    truth = pair.transform.apply(points.positions)
    return Task(pair, points, truth, tuple(kinds), _displaced(truth, seed), Points(np.concatenate(outside)))


def _displaced(truth: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Where points are expected: uniform in a ball around the truth."""
    generator = np.random.default_rng([seed, 77])
    direction = generator.normal(size=truth.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return truth + PRIOR_ERROR_MM * generator.uniform(size=(len(truth), 1)) ** (1 / 3) * direction
