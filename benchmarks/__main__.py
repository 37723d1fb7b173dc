"""Measure what is missing, one child process a row, and write docs/performance.md.

python -m benchmarks                    the quick rows, measured anew
python -m benchmarks --full             also those that take minutes or many GB each
python -m benchmarks --keep             only rows that were never measured
python -m benchmarks --only search      rows whose name begins so
python -m benchmarks --only device      a pair on the device: seconds, floors, how busy it was, and with what
python -m benchmarks --only device.pair the same without networks of MAISI's size
python -m benchmarks --only device.maisi networks of MAISI's size: encoding, and a search over 256^3 voxels
python -m benchmarks --only register    a transform, cold and from stored features
python -m benchmarks --only track       lesions at five time points, from stored features
python -m benchmarks --only viewer      the viewer in headless Chromium: from a click to the answer
python -m benchmarks --page             no measurement, only the page
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import page  # noqa: E402
from lines import device_lines, profile_lines, viewing_lines  # noqa: E402
from rows import MACHINE, ROWS, Row  # noqa: E402

RESULTS = HERE / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="also rows that take minutes or many GB each")
    parser.add_argument("--keep", action="store_true", help="only rows that were never measured")
    parser.add_argument("--only", default="", metavar="NAME", help="rows whose name begins so")
    parser.add_argument(
        "--device", default="", help="where rows of the device are computed; else that of --device auto"
    )
    parser.add_argument("--shape", default="", metavar="X,Y,Z", help="voxels of rows of the device")
    parser.add_argument("--page", action="store_true", help="no measurement, only the page")
    chosen = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for row in [] if chosen.page else ROWS:
        row = _as_told(row, chosen.device, chosen.shape)
        # Whoever names a row means it, also where it is not among the quick ones.
        named = bool(chosen.only) and chosen.only in (row.task, row.task.partition(".")[0])
        wanted = (row.quick or chosen.full or named) and row.key.startswith(chosen.only)
        wanted = wanted or (row is MACHINE and not _file(row).exists())
        if wanted and not (chosen.keep and _file(row).exists()):
            measure(row)
    found = {row.key: json.loads(_file(row).read_text()) for row in ROWS if _file(row).exists()}
    try:
        page.write(found, HERE.parent / "docs")
    except ModuleNotFoundError as error:
        print(f"the page is left as it is: {error}", file=sys.stderr)
        return
    print(f"wrote {HERE.parent / 'docs' / 'performance.md'}", file=sys.stderr)


def _as_told(row: Row, device: str, shape: str) -> Row:
    """A row of the device elsewhere, or smaller."""
    if row.task.partition(".")[0] != "device":
        return row
    told = {"shape": [int(n) for n in shape.split(",")]} if shape else {}
    return replace(row, told={**row.told, **told, **({"device": device} if device else {})})


def measure(row: Row) -> None:
    """Run a row in a process of its own and keep what it says."""
    print(row.key, end=" ", file=sys.stderr, flush=True)
    command = [sys.executable, str(HERE / "child.py"), row.task, json.dumps(row.told)]
    load = others_running()
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=None if row.task.startswith("device") else subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        print("failed:", (done.stderr.strip().splitlines() or ["killed: out of memory?"])[-1], file=sys.stderr)
        return
    result = json.loads(done.stdout.strip().splitlines()[-1])
    result |= {"task": row.task, "told": row.told, "load_before": round(load, 1), "day": time.strftime("%Y-%m-%d")}
    temporary = _file(row).with_suffix(".tmp")
    temporary.write_text(json.dumps(result) + "\n")
    temporary.replace(_file(row))
    print(f"{result.get('seconds', float('nan')):.3f} s", file=sys.stderr)
    for task, lines in (
        ("device", device_lines),
        ("device", profile_lines),
        ("viewer", viewing_lines),
    ):
        if row.task.partition(".")[0] == task:
            print("\n".join(lines(result)), flush=True)


def others_running() -> float:
    """How many other processes want a processor right now: mean of some looks at Linux's count, -1 elsewhere."""
    counts = []
    for _ in range(20):
        try:
            counts.append(int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1)
        except OSError:
            return -1.0
        time.sleep(0.02)
    return sum(counts) / len(counts)


def _file(row: Row) -> Path:
    return RESULTS / f"{row.key}.json"


if __name__ == "__main__":
    main()
