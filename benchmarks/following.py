"""Registration and lesions over time as commands, from features that are stored and from nothing."""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from commands import cropped_pair, run

#: Encodes the scans that are named, and nothing else: neither an affine nor a field is kept.
_ENCODE = """
import sys
from meddift import Matcher
with Matcher() as matcher:
    for scan in sys.argv[1:]:
        matcher.encode(scan).encode()
"""


def register(told: dict[str, Any]) -> dict[str, Any]:
    """`meddift register` on a drawn pair: cold, and from stored features."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fixed, moving, _, _ = cropped_pair(folder, told["shape"])
        rows = {}
        for kind in ("cold", "again"):
            environment = _environment(folder / kind)
            if kind == "again":
                run([sys.executable, "-c", _ENCODE, str(fixed), str(moving)], environment)
            command = [sys.executable, "-m", "meddift", "register", str(fixed), str(moving), "--json"]
            said, rows[kind] = run([*command, "--out", str(folder / f"{kind}.h5")], environment)
            told_by = json.loads(said)
            rows[kind] |= {"timing": told_by["timing"], "peak_bytes": told_by["peak_memory_bytes"]}
        return {**rows["again"], "cold": rows["cold"]}


def track(told: dict[str, Any]) -> dict[str, Any]:
    """`meddift track` on a drawn patient with stored features."""
    from meddift.io import write_volume
    from meddift_lab.longitudinal import drawn_patient

    patient = drawn_patient(1, times=told["times"], more=told["more"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines, scans = ["timepoint,date,scan,lesions"], []
        for number, (day, scan, mask) in enumerate(zip(patient.dates, patient.scans, patient.masks, strict=True)):
            scans.append(folder / f"{number}.nii.gz")
            write_volume(scan, scans[-1])
            write_volume(mask, folder / f"{number}-lesions.nii.gz")
            lines.append(f"t{number},{day:%Y-%m-%d},{number}.nii.gz,{number}-lesions.nii.gz")
        table = folder / "patient.csv"
        table.write_text("\n".join(lines) + "\n")
        environment = _environment(folder)
        run([sys.executable, "-c", _ENCODE, *map(str, scans)], environment)
        command = [sys.executable, "-m", "meddift", "track", str(table), "--out", str(folder / "out"), "--json"]
        _, row = run(command, environment)
        # The largest of both processes; encoding holds one scan at a time.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        lesions = [sum(bool(lesion[time]) for lesion in patient.labels) for time in range(told["times"])]
        shape = list(patient.scans[0].grid.shape)
        return {**row, "lesions": lesions, "shape": shape, "peak_bytes": peak}


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "MEDDIFT_CACHE": str(folder / "cache"), "MEDDIFT_HOME": str(folder / "home")}
