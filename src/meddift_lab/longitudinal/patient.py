"""Simulated patients with several scans and lesions of known identity, from a phantom or from a real scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from meddift.body import body_mask, lung_mask
from meddift.volume import Volume
from meddift_lab.longitudinal.fates import Course, random_courses
from meddift_lab.longitudinal.shapes import Lump, draw, label_map
from meddift_lab.longitudinal.sites import choose_sites
from meddift_lab.synthetic import BreathingDeformation, chest_phantom, random_transform, rescan
from meddift_lab.synthetic.deformation import triple
from meddift_lab.synthetic.degrade import crop_field_of_view
from meddift_lab.synthetic.moving_scan import moved_anatomy
from meddift_lab.synthetic.noise import noise_level, remove_noise

Floats = NDArray[np.float64]

#: Ranges of the descent of the diaphragm and of the table shift between the first and a later scan, mm.
BREATHING_MM, TABLE_MM = (12.0, 30.0), (10.0, 50.0)
#: Length cropped at the lower end of the scan that does not show the lesion "outside", mm.
LEFT_OUT_MM = 45.0
#: Days between scans.
INTERVAL_DAYS = 84


@dataclass(frozen=True, eq=False)
class LongitudinalPatient:
    """Scans of one patient and the ground truth of the lesions in them.

    Attributes:
        name: Name of the patient.
        scans: CT in HU, in temporal order.
        masks: Label maps of the lesions on the grids of the scans; labels are in a different random order in each.
        dates: Acquisition date of each scan.
        labels: `labels[lesion][time point]` holds the labels of its parts, empty where it is absent; both indices
            count from 0.
        states: (lesion, time point) -> true state, from its first appearance on.
        centers: (lesion, time point) -> its centre, also where it is absent, (3,) world RAS mm of that scan.
        fates: Kind of course of each lesion, see `Course`.
    """

    name: str
    scans: tuple[Volume, ...]
    masks: tuple[Volume, ...]
    dates: tuple[datetime, ...]
    labels: tuple[tuple[tuple[int, ...], ...], ...]
    states: Mapping[tuple[int, int], str]
    centers: Mapping[tuple[int, int], Floats]
    fates: tuple[str, ...]


def drawn_patient(
    seed: int,
    *,
    times: int = 3,
    spacing_mm: float = 2.0,
    size_mm: tuple[float, float, float] = (360.0, 280.0, 300.0),
    more: int = 4,
) -> LongitudinalPatient:
    """A patient made from a drawn chest, with lesions of every fate.

    Args:
        seed: Equal seeds give equal voxels.
        times: Number of scans.
        spacing_mm: Voxel size of the drawing.
        size_mm: Field of view along R, A and S.
        more: Number of further lesions, see `random_courses`.
    """
    phantom = chest_phantom(seed, spacing_mm=spacing_mm, size_mm=size_mm, lesions=0, noise_std_hu=0, table=False)
    left, right = phantom.structures["left lung"], phantom.structures["right lung"]
    return _patient(
        f"drawn-{seed}",
        phantom.volume,
        seed,
        lungs=Volume(left.data | right.data, left.grid),
        box=(phantom.lung_low, phantom.lung_high),
        noise_std_hu=16.0,
        times=times,
        more=more,
    )


def patient_of_scan(
    volume: Volume, seed: int, *, times: int = 3, more: int = 4, name: str = "scan"
) -> LongitudinalPatient:
    """A patient made from a real scan and simulated later scans, with drawn lesions of every fate.

    The noise of the scan is removed, so that it is not deformed along with the anatomy, and independent noise is
    added to every scan.

    Args:
        volume: (X, Y, Z), CT in HU.
        seed: Equal seeds give equal voxels.
        times: Number of scans.
        more: Number of further lesions, see `random_courses`.
        name: Name of the patient.

    Returns:
        The scans and their ground truth.
    """
    body = body_mask(volume)
    lungs = lung_mask(volume, body=body)
    if lungs.data.any():
        world = volume.grid.index_to_world(np.argwhere(lungs.data))
        low, high = np.percentile(world, 0.5, axis=0), np.percentile(world, 99.5, axis=0)
    else:
        still = BreathingDeformation.for_grid(volume.grid, amplitude_mm=0.0)
        low, high = np.array(still.lung_low), np.array(still.lung_high)
    level = noise_level(volume, body=body)
    return _patient(
        f"{name}-{seed}",
        remove_noise(volume, std_hu=level),
        seed,
        lungs=lungs if lungs.data.any() else None,
        box=((low[0], low[1], low[2]), (high[0], high[1], high[2])),
        noise_std_hu=level,
        times=times,
        more=more,
    )


def _patient(
    name: str,
    anatomy: Volume,
    seed: int,
    *,
    lungs: Volume | None,
    box: tuple[tuple[float, float, float], tuple[float, float, float]],
    noise_std_hu: float,
    times: int,
    more: int,
) -> LongitudinalPatient:
    generator = np.random.default_rng([seed, 21])
    transforms = [
        random_transform(
            seed * 100 + k,
            lung_low=box[0],
            lung_high=box[1],
            amplitude_mm=float(generator.uniform(*BREATHING_MM)),
            table_shift_mm=float(generator.uniform(*TABLE_MM)),
        )
        for k in range(1, times)
    ]
    later = [moved_anatomy(anatomy, transform, generator, lungs=lungs) for transform in transforms]
    # One of the later scans has a shorter field of view, cropped at its lower end.
    short = int(generator.integers(1, times))
    later[short - 1] = crop_field_of_view(later[short - 1], inferior=LEFT_OUT_MM)
    courses = random_courses(generator, times=times, more=more)
    moved = [lambda places: places, *(transform.apply for transform in transforms)]
    grids = [anatomy.grid, *(scan.grid for scan in later)]

    def shown(places: Floats, around: float) -> NDArray[np.bool_]:
        each = [grid.contains(move(places), margin_mm=around) for grid, move in zip(grids, moved, strict=True)]
        return np.asarray(np.all(each, axis=0), dtype=bool)

    def hidden(places: Floats) -> NDArray[np.bool_]:
        """(N,) bool, which points lie outside the short scan and well inside all others."""
        others = [
            grid.contains(move(places), margin_mm=14.0)
            for k, (grid, move) in enumerate(zip(grids, moved, strict=True))
            if k != short
        ]
        left_out = ~grids[short].contains(moved[short](places), margin_mm=-12.0)
        return np.asarray(np.all(others, axis=0) & left_out, dtype=bool)

    body = body_mask(anatomy)
    places = choose_sites(courses, anatomy, body, generator, shown=shown, hidden=hidden)
    hounsfield = _hounsfield(anatomy, places, generator)
    centers = {(i, k): moved[k](places[i]) for i in range(len(courses)) for k in range(times)}
    directions = generator.normal(size=(len(courses), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    scans, masks = [], []
    labels: list[list[tuple[int, ...]]] = [[] for _ in courses]
    for k, tissue in enumerate([anatomy, *later]):
        bodies = [_bodies(course, k, centers[i, k], directions[i], i) for i, course in enumerate(courses)]
        numbers = _numbers(courses, bodies, k, generator)
        lumps = [(lump, hounsfield[i]) for i, group in enumerate(bodies) for lump in group]
        scan = rescan(
            draw(tissue, lumps),
            seed=seed * 100 + k,
            crop_mm=0.0,
            noise_std_hu=noise_std_hu if k == 0 else None,
            thickness_mm=float(tissue.grid.spacing[2]) if k == 0 else None,
        )
        mask = label_map(
            scan.grid,
            [
                (lump, n)
                for group, own in zip(bodies, numbers, strict=True)
                for lump, n in zip(group, own, strict=True)
            ],
        )
        there = set(np.unique(mask.data).tolist())
        for i, own in enumerate(numbers):
            labels[i].append(tuple(sorted({n for n in own if n in there})))
        scans.append(scan)
        masks.append(mask)
    return LongitudinalPatient(
        name=name,
        scans=tuple(scans),
        masks=tuple(masks),
        dates=tuple(datetime(2024, 1, 8) + timedelta(days=INTERVAL_DAYS * k) for k in range(times)),
        labels=tuple(tuple(row) for row in labels),
        states=_states(courses, labels, short),
        centers=centers,
        fates=tuple(course.fate for course in courses),
    )


def _bodies(course: Course, k: int, center: Floats, direction: Floats, number: int) -> list[Lump]:
    radius = course.radii_mm[k]
    if radius is None:
        return []
    if course.split_at is None or k < course.split_at:
        return [Lump(triple(center), radius, number)]
    # Two separate parts, each with half the radius of the lesion.
    away = (0.55 * radius + 2.5) * direction
    return [Lump(triple(center + side * away), 0.5 * radius, number + 1000) for side in (-1.0, 1.0)]


def _numbers(
    courses: Sequence[Course], bodies: Sequence[Sequence[Lump]], k: int, generator: np.random.Generator
) -> list[list[int]]:
    """Random labels for the parts of each lesion at time point k; merged lesions share one label."""
    count = sum(len(group) for group in bodies)
    free = iter((generator.permutation(count + 5)[:count] + 1).tolist())
    numbers: list[list[int]] = []
    for i, (course, group) in enumerate(zip(courses, bodies, strict=True)):
        own = [int(next(free)) for _ in group]
        merged = course.merged_at is not None and k >= course.merged_at
        if merged and course.neighbour is not None and course.neighbour < i:
            own = [numbers[course.neighbour][0] for _ in group]
        numbers.append(own)
    return numbers


def _states(
    courses: Sequence[Course], labels: Sequence[Sequence[tuple[int, ...]]], short: int
) -> dict[tuple[int, int], str]:
    states = {}
    for i, course in enumerate(courses):
        seen = [k for k, own in enumerate(labels[i]) if own]
        for k in range(seen[0] if seen else len(labels[i]), len(labels[i])):
            if k == seen[0]:
                states[i, k] = "baseline" if k == 0 else "new"
            elif not labels[i][k]:
                states[i, k] = "outside" if course.fate == "outside" and k == short else "disappeared"
            elif course.merged_at is not None and k >= course.merged_at:
                states[i, k] = "merged"
            else:
                states[i, k] = "split" if len(labels[i][k]) > 1 else "matched"
    return states


def _hounsfield(anatomy: Volume, places: Floats, generator: np.random.Generator) -> Floats:
    """HU of each lesion, (N,): soft tissue in the lung; elsewhere darker or brighter than its surroundings."""
    around = anatomy.at(places)
    contrast = generator.choice([-1.0, 1.0], len(places)) * generator.uniform(25, 60, len(places))
    return np.where(around < -500, generator.uniform(0, 60, len(places)), around + contrast)
