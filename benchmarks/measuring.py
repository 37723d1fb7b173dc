"""Seconds and memory of one piece of work in this process, and what the machine can do at best."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meddift.system.memory import resident_peak_bytes


def reset_peak() -> int:
    """Forget the peak; returns what is held now, bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return resident_peak_bytes() or 0


def measured(work: Callable[[], Any], *, repeats: int = 1, warm_up: bool = False) -> tuple[dict[str, Any], Any]:
    """Median seconds of a piece of work, its processor seconds, and the memory it took beyond what was held before."""
    if warm_up:
        work()
    before = reset_peak()
    walls, processors, result = [], [], None
    for _ in range(repeats):
        result = None
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    middle = sorted(range(repeats), key=walls.__getitem__)[repeats // 2]
    told = {
        "seconds": walls[middle],
        "processor_seconds": processors[middle],
        "repeats": repeats,
        "before_bytes": before,
        "peak_bytes": resident_peak_bytes(),
    }
    return told, result


def machine(_: dict[str, Any]) -> dict[str, Any]:
    """Rates that floors are computed from, a second of one processor: matrix products, reading, copying."""
    import torch

    matrix = torch.randn(2048, 2048)
    product, _result = measured(lambda: matrix @ matrix, repeats=7, warm_up=True)
    block = torch.randn(64 * 1024 * 1024)
    read, _result = measured(lambda: block.sum(), repeats=7, warm_up=True)
    target = torch.empty_like(block)
    copy, _result = measured(lambda: target.copy_(block), repeats=7, warm_up=True)
    return {
        "flops": 2 * 2048**3 / product["processor_seconds"],
        "read_bytes": block.nbytes / read["processor_seconds"],
        "copy_bytes": 2 * block.nbytes / copy["processor_seconds"],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "seconds": product["seconds"],
        "peak_bytes": resident_peak_bytes(),
    }
