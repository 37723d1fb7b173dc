"""The whole command, from files to a file, in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from meddift.volume import Volume


def match(told: dict[str, Any]) -> dict[str, Any]:
    """`meddift match` on a drawn pair: cold (nothing stored) and again (features stored), and `import torch` alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fixed, moving, points = _files(folder, told)
        environment = {**os.environ, "MEDDIFT_CACHE": str(folder / "cache"), "MEDDIFT_HOME": str(folder / "home")}
        command = [sys.executable, "-m", "meddift", "match", str(fixed), str(moving), "--points", str(points)]
        plan = json.loads(run([*command, "--dry-run", "--json"], environment)[0])
        cold, cold_row = run([*command, "--out", str(folder / "a.csv"), "--json"], environment)
        again, row = run([*command, "--out", str(folder / "b.csv"), "--json"], environment)
        single = folder / "one.csv"
        single.write_text("\n".join(points.read_text().splitlines()[:3]) + "\n")
        _, one = run([*command[:-1], str(single), "--out", str(folder / "c.csv"), "--json"], environment)
        _, alone = run([sys.executable, "-c", "import torch"], environment)
        said = [json.loads(text) for text in (cold, again)]
        return {
            **row,
            "cold": cold_row,
            "one": one,
            "import_torch": alone,
            "estimated_bytes": plan["memory_bytes"],
            "cold_peak_bytes": said[0]["peak_memory_bytes"],
            "peak_bytes": said[1]["peak_memory_bytes"],
            "timing": [one["timing"] for one in said],
            "same": (folder / "a.csv").read_bytes() == (folder / "b.csv").read_bytes(),
        }


def run(command: list[str], environment: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """What a command prints, and how long it takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, {"seconds": seconds, "processor_seconds": used}


def cropped_pair(folder: Path, shape: list[int]) -> tuple[Path, Path, Volume, Volume]:
    """A drawn chest before and after breathing, on the grid asked for: two files, and what is in them."""
    from meddift.io import write_volume
    from meddift_lab.synthetic import phantom_pair

    pair = phantom_pair(1, crop_mm=0.0, thickness_mm=2.0)
    paths, scans = [], []
    for name, scan in (("fixed", pair.fixed), ("moving", pair.moving)):
        start = [(n - m) // 2 for n, m in zip(scan.grid.shape, shape, strict=True)]
        scans.append(scan.cropped(start, shape, fill=-1000))
        paths.append(folder / f"{name}.nii.gz")
        write_volume(scans[-1], paths[-1])
    return paths[0], paths[1], scans[0], scans[1]


def _files(folder: Path, told: dict[str, Any]) -> tuple[Path, Path, Path]:
    """A pair, and points with texture around them."""
    from meddift.io import write_points
    from meddift.models import find_spec, prepare_volume
    from meddift.pipeline.landmarks import textured_points
    from meddift.points import Points

    fixed_file, moving_file, fixed, _ = cropped_pair(folder, told["shape"])
    prepared = prepare_volume(fixed, find_spec("builtin"))
    places = textured_points(prepared, told["points"], within=fixed.grid, distance_mm=6.0)
    points = folder / "points.csv"
    write_points(Points(np.asarray(places)), points)
    return fixed_file, moving_file, points
