"""An engine of a millisecond that fails and dies as the names of cases say, and counts how often it was asked."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from meddift.cohort.needs import Needs
from meddift.errors import ImageError, OutputError
from meddift.system.atomic import write_text
from meddift.system.temporary import sweep_tree


def number_of(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 100


#: What happens to a case whose number is below these, by turns.
FAILS, DIES_ALWAYS, DIES_ONCE = 5, 7, 10


class FakeEngine:
    def __init__(self, settings) -> None:
        self.settings = settings
        self.told = settings["matcher"]
        self.out = Path(settings["out"])
        self.notes = Path(self.told["notes"])
        with (self.notes / "workers.txt").open("a") as stream:
            stream.write(json.dumps({"worker": f"{_network()} {os.getpid()}"}) + "\n")

    def versions(self):
        code = self.told.get("code", "fake")
        return {"code": self.told.get("code_of_worker", code) if _is_worker() else code}

    def needs(self, cases):
        return Needs(memory_bytes=self.told.get("memory_bytes", 0))

    def encode(self, scan):
        self._count(f"encode {Path(scan).name}")
        time.sleep(self.told.get("seconds", 0.001))
        if "broken" in Path(scan).read_text():
            raise ImageError(f"{Path(scan).name} is no image")
        return {"made": True, "sha256": hashlib.sha256(Path(scan).read_bytes()).hexdigest()}

    def run(self, case):
        self._count(f"run {case.name}")
        os.write(1, f"working on {case.name}\n".encode())
        time.sleep(self.told.get("seconds", 0.001))
        number = number_of(case.name) if self.told.get("trouble", True) else 99
        if self.told.get("full") and self._asked() > self.told["full"]:
            raise OutputError(f"cannot write {case.name}: the disk is full")
        if number < FAILS:
            raise ValueError(f"number {number} always fails")
        if number < DIES_ALWAYS or (number < DIES_ONCE and not self._has_died(case.name)):
            os.kill(os.getpid(), signal.SIGKILL)
        place = self.out / case.labels.place
        place.mkdir(parents=True, exist_ok=True)
        sweep_tree(place)
        write_text(f"{case.name}\n" * 50, place / f"{case.labels.stem}_result.txt")
        return {"row": {"points": number, "ok": number // 2, "folding": number / 7}, "outputs": []}

    def _has_died(self, name):
        mark = self.notes / f"died-{name}"
        if mark.exists():
            return True
        mark.touch()
        return False

    def _asked(self):
        return sum(count for what, count in asked(self.notes).items() if what.startswith("run"))

    def _count(self, what):
        with (self.notes / "asked.txt").open("a") as stream:
            stream.write(what + "\n")


def _network() -> str:
    """Which network this process is in."""
    place = Path("/proc/self/ns/net")
    return str(place.readlink()) if place.is_symlink() else ""


def _is_worker() -> bool:
    """Whether this is no program that tests have started themselves, but a process of a cohort or an actor of Ray."""
    if getattr(sys.modules["__main__"].__spec__, "name", "") == "meddift.cohort.worker":
        return True
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE


def asked(notes: Path) -> Counter:
    """How often each scan was encoded and each case was run."""
    path = notes / "asked.txt"
    return Counter(path.read_text().split("\n")[:-1]) if path.exists() else Counter()


def make(settings) -> FakeEngine:
    return FakeEngine(settings)
