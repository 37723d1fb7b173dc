"""The demo: a scan, its follow-up by a known deformation, and how well points are found again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meddift.geometry import AffineTransform
from meddift.matching.matches import Matches
from meddift.pipeline import Matcher
from meddift.pipeline.accuracy import Accuracy, Errors, measure_accuracy
from meddift.system.progress import Progress, silent
from meddift.volume import Volume
from meddift_lab.synthetic import SyntheticPair

#: How far the diaphragm descends and the patient lies elsewhere in the follow-up, mm.
BREATHING_MM, TABLE_SHIFT_MM = 30.0, 35.0

#: Rows of the comparison, in the order of reading.
NOT_MOVING, BEST_AFFINE, FOUND, FOUND_OK = "not moving", "best affine", "meddift", "meddift, verdict ok"


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo did.

    Attributes:
        scans: The two scans, the points and their exact truth.
        matches: What was found.
        accuracy: Errors of the matches.
        comparison: Errors by method: not moving at all, the affine that fits the truth best, and meddift.
        report: Everything for JSON.
        seconds: How long all of it took.
    """

    scans: SyntheticPair
    matches: Matches
    accuracy: Accuracy
    comparison: Mapping[str, Errors]
    report: Mapping[str, Any]
    seconds: float


def run_demo(
    matcher_with: Callable[[Progress], Matcher],
    *,
    scan: Volume | None = None,
    count: int = 50,
    seed: int = 1,
    on_progress: Progress | None = None,
) -> DemoResult:
    """Make two scans of one patient, find points of the first in the second, and compare with the exact truth.

    The follow-up is the first scan after breathing (30 mm at the diaphragm), small local changes, a rotation and a
    table shift of 35 mm, with noise, slice thickness and field of view of another scanner.

    Args:
        matcher_with: Makes the matcher, given where it shall report its progress.
        scan: A CT of the chest; a phantom is drawn if None.
        count: Number of points.
        seed: Decides phantom, deformation and noise.
        on_progress: Called with the name of a stage and the share of the work that is done.

    Raises:
        MeddiftError: if the model is not on this machine.
    """
    from meddift.pipeline.report import match_report
    from meddift_lab.synthetic import phantom_pair, scan_pair

    report = on_progress or silent
    started = time.perf_counter()
    settings: dict[str, Any] = {
        "amplitude_mm": BREATHING_MM,
        "table_shift_mm": TABLE_SHIFT_MM,
        "n_points": count,
    }
    report("drawing a chest and its follow-up" if scan is None else "deforming the scan", 0.02)
    scans = phantom_pair(seed, **settings) if scan is None else scan_pair(scan, seed, **settings)

    def later(stage: str, fraction: float) -> None:
        report(stage, 0.25 + 0.65 * fraction)

    matcher = matcher_with(later)
    pair = matcher.pair(scans.fixed, scans.moving)
    matches = pair.match(scans.points)
    accuracy = measure_accuracy(matches, scans.truth, scans.moving.grid)
    comparison = {**_baselines(scans), FOUND: accuracy.all, FOUND_OK: accuracy.ok}
    content = match_report(pair, matches, accuracy)
    seconds = time.perf_counter() - started
    content["demo"] = {
        "scans": scans.name,
        "seed": seed,
        "breathing_mm": BREATHING_MM,
        "table_shift_mm": TABLE_SHIFT_MM,
        "seconds": seconds,
        "comparison_mm": {name: errors.as_dict() for name, errors in comparison.items()},
    }
    report("done", 0.92)
    return DemoResult(scans, matches, accuracy, comparison, content, seconds)


def write_demo(result: DemoResult, folder: Path, *, picture: bool = True) -> dict[Path, str]:
    """Write scans, points for 3D Slicer, picture and JSON; all of them or none.

    Args:
        result: What the demo did.
        folder: Output folder; created if it does not exist.
        picture: Whether to draw a picture.

    Returns:
        Path -> what it is.

    Raises:
        OutputError: if something cannot be written.
    """
    from meddift.io import write_points, write_volume
    from meddift.pipeline.picture import draw_matches, save_picture
    from meddift.system.atomic import write_json, write_together
    from meddift.system.folders import make_folder

    scans, matches = result.scans, result.matches
    described = [
        f"{verdict}: {reason}" if reason else verdict
        for verdict, reason in zip(matches.verdict, matches.reason, strict=True)
    ]
    found = {"description": described}
    writers: dict[str, Callable[[Path], None]] = {
        "fixed.nii.gz": lambda path: write_volume(scans.fixed, path),
        "moving.nii.gz": lambda path: write_volume(scans.moving, path),
        "fixed-points.mrk.json": lambda path: write_points(scans.points, path),
        "found-points.mrk.json": lambda path: write_points(matches.moving, path, extra=found),
        "true-points.mrk.json": lambda path: write_points(scans.truth, path),
        "matches.json": lambda path: write_json(dict(result.report), path),
    }
    if picture:
        writers["matches.png"] = lambda path: save_picture(
            draw_matches(scans.fixed, scans.moving, matches, truth=scans.truth), path
        )
    new = not folder.exists()
    try:
        make_folder(folder)
        write_together({folder / name: writer for name, writer in writers.items()})
    except BaseException:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return {folder / name: FILES[name] for name in writers}


def is_demo(folder: Path) -> bool:
    """Whether a folder holds the results of a demo, of two scans or of a follow-up."""
    from meddift_lab.demo_follow_up import TRUTH

    if (folder / TRUTH).is_file():
        return True
    try:
        return "demo" in json.loads((folder / "matches.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


#: The files of a demo, and what they are.
FILES = {
    "fixed.nii.gz": "the first scan",
    "moving.nii.gz": "its follow-up",
    "fixed-points.mrk.json": "the points, on the first scan (3D Slicer)",
    "found-points.mrk.json": "where they were found in the follow-up (3D Slicer)",
    "true-points.mrk.json": "where they really are (3D Slicer)",
    "matches.json": "all numbers",
    "matches.png": "some of the points in three planes",
}


def _baselines(scans: SyntheticPair) -> dict[str, Errors]:
    """Errors of doing nothing, and of the affine fitted to the truth itself: no affine method can do better."""
    start, goal = scans.points.positions, scans.truth.positions
    inside = scans.moving.grid.contains(goal)
    best = AffineTransform.fit(start, goal).apply(start)
    return {
        NOT_MOVING: Errors.of(np.linalg.norm(start - goal, axis=1)[inside]),
        BEST_AFFINE: Errors.of(np.linalg.norm(best - goal, axis=1)[inside]),
    }
