"""Memory and time that a run needs, estimated before it starts, and the number of workers that fit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from meddift.cohort.pace import duration
from meddift.cohort.plan import Plan
from meddift.errors import MemoryLimitError
from meddift.system.memory import available_memory


@dataclass(frozen=True)
class Needs:
    """Estimated memory and time.

    Attributes:
        memory_bytes: Peak memory of one worker, bytes.
        scan_s: Time to encode all scans on one processor core, s.
        case_s: Time to process all cases on one processor core, s.
        devices: Indices of the CUDA devices; empty on the CPU.
        store_bytes: Size of the features of one scan on disk, bytes.
    """

    memory_bytes: int = 0
    scan_s: float = 0.0
    case_s: float = 0.0
    devices: tuple[str, ...] = ()
    store_bytes: int = 0


@dataclass(frozen=True)
class Crew:
    """Number of workers and threads, and what they need.

    Attributes:
        workers: Number of workers.
        threads: Number of threads of each worker.
        needs: Memory and time; the memory is that of one worker.
        left_bytes: Free memory, bytes; None if unknown, as on a cluster.
        cases: Number of cases to be done.
        scans: Number of scans to be encoded.
    """

    workers: int
    threads: int
    needs: Needs
    left_bytes: int | None
    cases: int
    scans: int

    @property
    def seconds(self) -> float:
        """Estimated duration of the run, s."""
        return (self.needs.scan_s + self.needs.case_s) / (self.workers * (1 if self.needs.devices else self.threads))

    def sentences(self) -> list[str]:
        """The plan in words."""
        each = self.needs.memory_bytes
        where = f"on {len(self.needs.devices)} graphics card(s)" if self.needs.devices else "on processors"
        memory = f"{each / 1e9:.1f} GB of memory each, {self.workers * each / 1e9:.1f} GB together"
        left = "" if self.left_bytes is None else f" of {self.left_bytes / 1e9:.1f} GB that are free"
        lines = [
            f"{self.cases} cases to do with {self.scans} scans, each encoded once",
            f"{self.workers} worker(s) {where}, {self.threads} thread(s) each: {memory}{left}",
        ]
        if self.needs.store_bytes:
            lines.append(
                f"features of a scan take {self.needs.store_bytes / 1e6:.0f} MB on disk while they are needed"
            )
        if self.seconds:
            lines.append(f"about {duration(self.seconds)}, a rough estimate; it becomes better with the first cases")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        return {
            "workers": self.workers, "threads": self.threads, "cases": self.cases, "scans": self.scans,
            "worker_memory_bytes": self.needs.memory_bytes, "free_memory_bytes": self.left_bytes,
            "devices": list(self.needs.devices), "scan_store_bytes": self.needs.store_bytes,
            "seconds": round(self.seconds),
        }  # fmt: skip


def choose_crew(plan: Plan, needs: Needs, *, cases: int, scans: int) -> Crew:
    """Choose the number of workers and of their threads.

    Args:
        plan: The plan; its `workers` and `threads` are kept if given.
        needs: Memory of one worker, and time.
        cases: Number of cases to be done.
        scans: Number of scans to be encoded.

    Raises:
        MemoryLimitError: if the workers asked for, or a single one, do not fit into the free memory.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    elsewhere = plan.ray not in (None, "local")
    left = None if elsewhere else available_memory()
    wanted = plan.workers or len(needs.devices) or max(processors // (plan.threads or 1), 1)
    wanted = max(min(wanted, cases), 1) if plan.workers is None else plan.workers
    fitting = wanted if left is None or not needs.memory_bytes else left // needs.memory_bytes
    if fitting < (plan.workers or 1):
        raise MemoryLimitError(
            f"a worker takes up to {needs.memory_bytes / 1e9:.1f} GB of memory, and {(left or 0) / 1e9:.1f} GB are "
            f"free: there is room for {fitting}, not for {plan.workers or 1}. Take fewer workers or a larger machine"
        )
    workers = min(wanted, fitting)
    return Crew(workers, plan.threads or max(processors // workers, 1), needs, left, cases, scans)
