"""Feed damaged files to a reader in a process of its own, and say what went wrong.

Right is: the reader returns, or raises a `MeddiftError`. Wrong is everything else: another exception (warnings are
errors), a process that dies, more than a second of processor time, more than 200 MB of further memory.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutations import mutated

from meddift.errors import MeddiftError

SECONDS = 1.0
MEMORY = 200 << 20
_BATCH = 5_000
#: Damaged files are written thousands of times a minute: to memory where the system has a place in it.
_PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_STILL = 60.0  # seconds without an end of the batch's current file before it counts as waiting for ever


@dataclass(frozen=True)
class Fault:
    """What one damaged file did.

    Attributes:
        number: `mutations.mutated(seeds, number)` makes the file again.
        what: The exception or signal, in a line.
    """

    number: int
    what: str


def fuzz(
    reader: str, seeds: Mapping[str, bytes], *, count: int, first: int = 0, tokens: Sequence[bytes] = ()
) -> list[Fault]:
    """Read `count` damaged files.

    Args:
        reader: "module:function"; called with the path of one file.
        seeds: Good files by name; a damaged file bears the name of the one it was made of.
        count: How many.
        first: Number of the first.
        tokens: Words of the format for `mutations.mutated`.

    Returns:
        The faults, none if all is well.

    Raises:
        AssertionError: if a file that nobody damaged is not read.
    """
    faults: list[Fault] = []
    with tempfile.TemporaryDirectory(dir=_PLACE) as name:
        folder = Path(name)
        (folder / "seeds").mkdir()
        for seed, content in seeds.items():
            (folder / "seeds" / seed).write_bytes(content)
        order = {"reader": reader, "tokens": [token.hex() for token in tokens]}
        number, end = first, first + count
        while number < end:
            order.update(first=number, last=min(number + _BATCH, end))
            (folder / "order.json").write_text(json.dumps(order))
            status = _run(folder)
            report = (folder / "report.jsonl").read_text().splitlines()
            faults += [Fault(**json.loads(line)) for line in report]
            reached = int((folder / "reached").read_text() or number)
            if status == 0:
                number = order["last"]
                continue
            errors = (folder / "stderr").read_text(errors="replace")[-2000:]
            assert reached >= number, f"the reader {reader} does not read the good files:\n{errors}"
            faults.append(Fault(reached, _death(status)))
            number = reached + 1
    return faults


def _run(folder: Path) -> int:
    """One worker over its batch: 0, or how it ended; -SIGALRM if it stood still."""
    (folder / "report.jsonl").write_text("")
    (folder / "reached").write_text("-1")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONFAULTHANDLER": ""}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    with (folder / "stderr").open("wb") as errors:
        worker = subprocess.Popen(
            [sys.executable, "-W", "error", __file__, str(folder)], stderr=errors, env=environment
        )
        before = ""
        while True:
            try:
                return worker.wait(timeout=_STILL)
            except subprocess.TimeoutExpired:
                now = (folder / "reached").read_text()
                if now == before:
                    worker.kill()
                    worker.wait()
                    return -signal.SIGALRM
                before = now


def _death(status: int) -> str:
    if status == -signal.SIGPROF:
        return f"over {SECONDS:g} s of processor time"
    if status == -signal.SIGALRM:
        return "waits for ever"
    return f"died of {signal.Signals(-status).name}" if status < 0 else f"left with exit code {status}"


def _work(folder: Path) -> None:
    """The worker: limits are set once the good files have been read, so that libraries are loaded by then."""
    order = json.loads((folder / "order.json").read_text())
    module, _, function = order["reader"].partition(":")
    reader: Callable[[Path], Any] = getattr(importlib.import_module(module), function)
    seeds = {path.name: path.read_bytes() for path in sorted((folder / "seeds").iterdir())}
    for name in seeds:
        reader(folder / "seeds" / name)
    _limit_memory()
    tokens = [bytes.fromhex(token) for token in order["tokens"]]
    place = folder / "damaged"
    place.mkdir(exist_ok=True)
    with (folder / "report.jsonl").open("a") as report, (folder / "reached").open("r+") as reached:
        for number in range(order["first"], order["last"]):
            name, content = mutated(seeds, number, tokens=tokens)
            path = place / name
            path.write_bytes(content)
            reached.seek(0)
            reached.write(f"{number:<12d}")
            reached.flush()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                reader(path)
            except MeddiftError:
                pass
            except BaseException as error:
                signal.setitimer(signal.ITIMER_PROF, 0)
                last = traceback.extract_tb(error.__traceback__)[-1]
                what = f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}:{last.lineno})"
                report.write(json.dumps({"number": number, "what": what}) + "\n")
                report.flush()
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory() -> None:
    """At most 200 MB more address space than now; only Linux keeps to it."""
    import resource

    if sys.platform != "linux":
        return
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
