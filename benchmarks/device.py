"""A pair from scans to answers in one warm process: seconds a stage, the floor, and how busy the device is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measuring import peak_bytes, reset_peak
from torch.utils.flop_counter import FlopCounterMode

from meddift import Matcher
from meddift.models import prepare_volume
from meddift.pipeline.landmarks import textured_points
from meddift.points import Points
from meddift_lab.synthetic import phantom_pair


def pair(told: dict[str, Any]) -> dict[str, Any]:
    """Match and register a drawn chest; the first round is not counted, the second timed, the third looked into."""
    matcher = Matcher(store=False)
    device = torch.device(matcher.settings.runtime.device)
    made = phantom_pair(1, crop_mm=0.0, thickness_mm=2.0)
    scans = []
    for scan in (made.fixed, made.moving):
        start = [(n - m) // 2 for n, m in zip(scan.grid.shape, told["shape"], strict=True)]
        scans.append(scan.cropped(start, told["shape"], fill=-1000))
    places = textured_points(
        prepare_volume(scans[0], matcher.settings.spec), told["points"], within=scans[0].grid, distance_mm=6.0
    )
    points = Points(np.asarray(places))
    stages: dict[str, Callable[[Any], Any]] = {
        "encode": lambda asked: asked.encode(),
        "match": lambda asked: asked.match(points),
        "register": lambda asked: asked.register(),
    }
    asked = matcher.pair(*scans)
    flops = {name: _flops(lambda work=work, asked=asked: work(asked)) for name, work in stages.items()}
    asked = matcher.pair(*scans)
    before = reset_peak()
    seconds, processor, parts = {}, {}, {}
    for name, work in stages.items():
        _wait(device)
        wall, used = time.perf_counter(), time.process_time()
        result = work(asked)
        _wait(device)
        seconds[name], processor[name] = time.perf_counter() - wall, time.process_time() - used
        parts[name] = dict(asked.timing) if name != "register" else dict(result.timing)
    asked = matcher.pair(*scans)
    busy = {name: _busy(lambda work=work, asked=asked: work(asked), device) for name, work in stages.items()}
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "rate": _rate(device),
        "flops_of": flops,
        "seconds_of": seconds,
        "processor_seconds_of": processor,
        "parts": parts["register"],
        "busy": busy,
        "seconds": sum(seconds.values()),
        "processor_seconds": sum(processor.values()),
        "before_bytes": before,
        "peak_bytes": peak_bytes(),
    }


def _flops(work: Callable[[], Any]) -> int:
    """Multiplications and additions in products and convolutions; of those in threads of our own, none."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def _rate(device: torch.device) -> float:
    """FLOP/s of a product of two large float32 matrices."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(size, size, device=device)
    best = float("inf")
    for _ in range(5):
        _wait(device)
        started = time.perf_counter()
        matrix @ matrix
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _busy(work: Callable[[], Any], device: torch.device) -> float | None:
    """Share of the time in which the device computed or copied; None where there is no device beside the processor."""
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    _wait(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        work()
        _wait(device)
        wall = time.perf_counter() - started
    return sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6 / wall


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
