"""A follow-up as `meddift track` leaves it, of drawn balls, without an engine."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np

from drawn_lesions import SCAN, Shift, balls
from meddift.io import write_volume
from meddift.tracking.candidates import candidates_of_mask
from meddift.tracking.follow import follow
from meddift.tracking.result import FollowUp, SeenTimePoint
from meddift.volume import Volume

STEP = (5.0, -3.0, 2.0)
#: Label, centre at the first time point and radius in mm at each: one grows, one stays, one goes, one comes.
LESIONS = (
    (1, (40.0, 80.0, 60.0), (7.0, 9.0, 11.0)),
    (2, (100.0, 60.0, 50.0), (8.0, 8.0, 8.0)),
    (3, (70.0, 110.0, 60.0), (6.0, 0.0, 0.0)),
    (4, (60.0, 40.0, 70.0), (0.0, 6.0, 7.0)),
)


def write_follow_up(folder: Path) -> Path:
    """Three scans and their masks beside the results in `folder`/out, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    points = []
    for k, day in enumerate(("2024-01-02", "2024-03-26", "2024-06-18")):
        shown = [
            (label, np.array(center) + k * np.array(STEP), radii[k]) for label, center, radii in LESIONS if radii[k]
        ]
        mask = balls(*shown)
        generator = np.random.default_rng(k)
        values = SCAN.data + generator.normal(0, 20, SCAN.data.shape).astype(np.int16) + 90 * (mask.data > 0)
        scan = Volume(values.astype(np.int16), SCAN.grid, modality="CT")
        path = folder / f"scan-{k}.nii.gz"
        write_volume(scan, path)
        found = candidates_of_mask(mask, scan)
        points.append(
            SeenTimePoint(f"T{k}", datetime.fromisoformat(day), day, "", str(path), found, scan.grid, scan.digest())
        )
    course = follow([point.lesions for point in points], Shift(STEP), names=[point.name for point in points])
    FollowUp(subject="DOE^JANE", time_points=tuple(points), course=course).save(folder / "out")
    return folder / "out"
