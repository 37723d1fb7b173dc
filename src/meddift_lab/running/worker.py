"""The process in which one method runs on one case: `python -m meddift_lab.running.worker JOB.json ANSWER.json`."""

from __future__ import annotations

import contextlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from meddift.errors import MeddiftError
from meddift.system.atomic import write_json
from meddift.system.children import end_with_parent
from meddift.system.temporary import temporary_folder
from meddift_lab.running.stages import Stages


def main(job_path: str, answer_path: str) -> int:
    """Run the method on the case and write the result.

    Args:
        job_path: Path of the JSON file that describes the method and the case.
        answer_path: Path of the JSON file for the result.

    Returns:
        Exit status: 0, also if the method failed, which is recorded in the result.
    """
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    end_with_parent(int(job["parent"]))
    stages = Stages()
    try:
        content = {"status": "ok", **_run(job, stages)}
    except MemoryError as error:
        content = {"status": "failed", "reason": f"out of memory: {error}"}
    except Exception as error:  # any failure of a method is recorded as its result
        text = str(error).strip() or type(error).__name__
        reason = text if isinstance(error, MeddiftError) else f"{type(error).__name__}: {text}"
        content = {"status": "failed", "reason": reason[-2000:]}
    content["stages"] = stages.as_dict()
    write_json(content, answer_path)
    return 0


def _run(job: dict[str, Any], stages: Stages) -> dict[str, Any]:
    """Read the scans, run the method and measure its field."""
    from meddift.io import read_volume
    from meddift_lab.methods.registry import find_methods

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that use the global generator
    method = find_methods([job["method"]])[0]
    with stages.stage("load libraries"):
        find = method.load()
    with stages.stage("read scans"):
        fixed, moving = read_volume(job["fixed"]), read_volume(job["moving"])
    points = np.asarray(job["points_ras_mm"], dtype=np.float64).reshape(-1, 3)
    # Some libraries write files to the working directory, so it is a temporary folder.
    with temporary_folder("method") as folder, contextlib.chdir(folder):
        with stages.stage("find"):
            answer = find(fixed, moving, points, settings=method.settings, work=folder)
        if answer.positions.shape != points.shape:
            raise ValueError(f"the method returned {answer.positions.shape} for points of {points.shape}")
        content: dict[str, Any] = {
            "positions_ras_mm": [None if np.isnan(row).any() else row.tolist() for row in answer.positions],
            "details": dict(answer.details),
            "regularity": None,
            "overlap": None,
        }
        if answer.field is not None:
            from meddift.body import body_mask
            from meddift.registration import warp_labels
            from meddift_lab.metrics.overlap import measure_overlap
            from meddift_lab.metrics.regularity import measure_regularity

            with stages.stage("sample field"):
                field = answer.field(fixed.grid)
            # This reveals a field in another frame or direction than the points: it would differ by centimetres.
            apart = np.linalg.norm(field.apply(points) - answer.positions, axis=1)
            content["field_off_points_mm"] = float(np.median(apart))
            with stages.stage("measure field"):
                if job["mask"] is not None:
                    mask, name = read_volume(job["mask"], check=False), "the mask of the data set"
                else:
                    mask, name = body_mask(fixed), "the body"
                content["regularity"] = measure_regularity(
                    field, mask=mask if mask.data.any() else None, mask_name=name
                ).as_dict()
                if job["labels"] is not None:
                    labels = [read_volume(path, check=False) for path in job["labels"]]
                    rows = measure_overlap(labels[0], warp_labels(labels[1], field, labels[0].grid))
                    content["overlap"] = [
                        {"label": row.label, "dice": row.dice, "hd95_mm": row.hd95_mm} for row in rows
                    ]
    return content


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
