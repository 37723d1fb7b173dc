"""A pair from scans to answers in one warm process: seconds a stage, its floor, and what the device was busy with."""

from __future__ import annotations

import cProfile
import os
import pstats
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import reset_peak
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from meddift import Matcher
from meddift.models import DiffusionModel, prepare_volume
from meddift.models.loader import PosteriorEncoder, _attending, _empty_network
from meddift.pipeline.landmarks import textured_points
from meddift.points import Points
from meddift.system.memory import resident_peak_bytes
from meddift.volume import Volume
from meddift_lab.synthetic import phantom_pair

#: How many kernels, operations and functions are named a stage.
NAMED = 15
#: Calls of CUDA and of PyTorch after which the processor has waited, or something was copied.
COUNTED = (
    "cudaMemcpyAsync",
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "aten::item",
    "aten::nonzero",
    "cudaLaunchKernel",
    "cudaMalloc",
)

HERE = Path(__file__).parent
_BEGAN = time.perf_counter()

Stages = dict[str, Callable[[Any], Any]]


def pair(told: dict[str, Any]) -> dict[str, Any]:
    """Match and register a drawn chest, a stage after the other."""
    matcher = Matcher(store=False, device=told.get("device", "auto"))
    scans = _chest(told["shape"])
    prepared = prepare_volume(scans[0], matcher.settings.spec)
    points = Points(np.asarray(textured_points(prepared, told["points"], within=scans[0].grid, distance_mm=6.0)))

    def stages() -> Stages:
        return {
            "encode": lambda asked: asked.encode(),
            "prior": lambda asked: asked.starts,
            "masks": lambda asked: (asked.fixed.body, asked.fixed.lungs),
            "field": lambda asked: asked.field,
            "usual": lambda asked: asked.usual,
            "points": lambda asked: asked.match(points),
            "register": lambda asked: asked.register(),
        }

    found = _measured(matcher, scans, stages())
    seconds = found["seconds_of"]
    match_seconds = sum(seconds[name] for name in seconds if name != "register")
    return {**found, "match_seconds": match_seconds, "new_shape": _new_shape(matcher, scans)}


def maisi(told: dict[str, Any]) -> dict[str, Any]:
    """Encode a drawn chest with networks of MAISI's size and random weights, and search everywhere for points.

    Args:
        told: `shape`, `points` and `preset`; optionally `device`, and `model`, another one with such networks.
    """
    matcher = Matcher(
        told.get("model", "maisi-ct-ddpm"), told["preset"], store=False, device=told.get("device", "auto")
    )
    settings = matcher.settings
    # A checkpoint that is made here: what it costs does not depend on what it has learnt.
    settings.__dict__["model"] = _random_model(matcher)
    settings.__dict__["weights_hash"] = "0" * 64
    scans = _chest(told["shape"])
    prepared = prepare_volume(scans[0], settings.spec)
    positions = np.asarray(textured_points(prepared, told["points"], within=scans[0].grid, distance_mm=6.0))
    there: list[Any] = []
    stages: Stages = {
        "encode": lambda asked: asked.encode(),
        "index": lambda asked: asked.sides,
        "search": lambda asked: there.append(asked.direction.locate(positions)),
        "back": lambda asked: asked.direction.reversed().locate(there[-1].positions),
    }
    found = _measured(matcher, scans, stages)
    return {**found, "match_seconds": sum(found["seconds_of"].values()), "points": len(positions)}


def _new_shape(matcher: Matcher, scans: list[Volume]) -> dict[str, Any]:
    """Encode a pair of a shape that this process has not seen, and once more: scans without the last quarter."""
    device = torch.device(matcher.settings.runtime.device)
    seconds = []
    for _ in range(2):
        asked = matcher.pair(*(_without_a_quarter(scan) for scan in scans))
        _wait(device)
        started = time.perf_counter()
        pyramids = asked.encode()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    _told("another shape")
    shapes = [list(pyramid.network_grid.shape) for pyramid in pyramids]
    return {"network_shapes": shapes, "seconds": seconds[0], "again_seconds": seconds[1]}


def _without_a_quarter(scan: Volume) -> Volume:
    """A scan without the last quarter of its slices."""
    x, y, z = scan.grid.shape
    return scan.cropped((0, 0, 0), (x, y, z - z // 4))


def _chest(shape: list[int]) -> list[Volume]:
    """A chest before and after breathing, on so many voxels over 360 x 360 x 340 mm, or less where voxels are few."""
    made = phantom_pair(1, crop_mm=0.0, thickness_mm=2.0)
    _told("drawn")
    scans = []
    for scan in (made.fixed, made.moving):
        size = [min(180, shape[0]), min(180, shape[1]), min(170, shape[2])]
        start = [(n - m) // 2 for n, m in zip(scan.grid.shape, size, strict=True)]
        cut = scan.cropped(start, size, fill=-1000)
        if list(cut.grid.shape) != shape:
            finer = cut.resampled_along_axes(cut.grid.resized(shape))
            cut = Volume(np.rint(finer.data).astype(np.int16), finer.grid, modality="CT")
        scans.append(cut)
    return scans


def _random_model(matcher: Matcher) -> DiffusionModel:
    """A model of random weights on the device."""
    settings = matcher.settings
    torch.manual_seed(0)
    networks = []
    for role in ("unet", "autoencoder"):
        network = _empty_network(settings.spec, role).to_empty(device=settings.runtime.device)
        for name, parameter in network.named_parameters():
            torch.nn.init.normal_(parameter.detach(), std=0.02)
            if "norm" in name and name.endswith("weight"):
                torch.nn.init.ones_(parameter.detach())
        networks.append(network.eval().requires_grad_(False))
    unet, autoencoder = networks
    return DiffusionModel(
        settings.spec,
        unet=unet,
        encoder=_attending(PosteriorEncoder(autoencoder)),
        scale_factor=1.0,
        weights_hash="0" * 64,
        device=settings.runtime.network_device,
        precision=settings.precision,
    )


def _measured(matcher: Matcher, scans: list[Volume], stages: Stages) -> dict[str, Any]:
    """Four rounds: one that is not counted, then those that are timed, profiled on the device, and in Python."""
    device = torch.device(matcher.settings.runtime.device)
    flops, first = {}, {}
    asked = matcher.pair(*scans)
    for name, work in stages.items():
        started = time.perf_counter()
        with FlopCounterMode(display=False) as counter:
            work(asked)
        _wait(device)
        first[name], flops[name] = time.perf_counter() - started, int(counter.get_total_flops())
    _told("first round")
    before = reset_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    asked = matcher.pair(*scans)
    seconds, processor = {}, {}
    for name, work in stages.items():
        _wait(device)
        wall, used = time.perf_counter(), time.process_time()
        work(asked)
        _wait(device)
        seconds[name], processor[name] = time.perf_counter() - wall, time.process_time() - used
    parts = dict(asked.timing)
    # Said at once, for whoever cannot wait for the profiles.
    most = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    _told(
        f"timed, {most:,} bytes on the device: {', '.join(f'{name} {took:.3f} s' for name, took in seconds.items())}"
    )
    asked = matcher.pair(*scans)
    profiled = {name: _profiled(lambda work=work, asked=asked: work(asked), device) for name, work in stages.items()}
    _told("profiled")
    asked = matcher.pair(*scans)
    functions = {name: _functions(lambda work=work, asked=asked: work(asked), device) for name, work in stages.items()}
    _told("profiled in Python")
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "torch": torch.__version__,
        "rate": _rate(device),
        "flops_of": flops,
        "first_seconds_of": first,
        "seconds_of": seconds,
        "processor_seconds_of": processor,
        "parts": parts,
        "busy": {name: each["busy"] for name, each in profiled.items()},
        "profiled": profiled,
        "functions": functions,
        "packages": _packages(),
        "seconds": sum(seconds.values()),
        "processor_seconds": sum(processor.values()),
        "before_bytes": before,
        "peak_bytes": resident_peak_bytes(),
        "device_peak_bytes": most,
    }


def _rate(device: torch.device) -> float:
    """FLOP/s of a product of two large float32 matrices."""
    size = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(size, size, device=device)
    best = float("inf")
    for _ in range(3):
        _wait(device)
        started = time.perf_counter()
        matrix @ matrix
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _profiled(work: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """What PyTorch's profiler sees of some work: the share of the time in which the device computed or copied (None
    where there is no device beside the processor), copies and waits, and what took longest.
    """
    on_card = device.type == "cuda"
    _wait(device)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]) as profiler:
        started = time.perf_counter()
        work()
        _wait(device)
        wall = time.perf_counter() - started
    # Events as they were recorded: PyTorch's own tables of them take minutes.
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = profiler.profiler.kineto_results.events()
    on_device = [str(event.device_type()).endswith("CUDA") for event in events]
    kernels = _summed([event for event, there in zip(events, on_device, strict=True) if there])
    operations = _summed([event for event, there in zip(events, on_device, strict=True) if not there])
    counts = {name: many for name, (_, many) in {**kernels, **operations}.items() if _counted(name)}
    return {
        "seconds": wall,
        "busy": sum(took for took, _ in kernels.values()) / wall if on_card else None,
        "counts": counts,
        "kernels": _longest(kernels),
        "operations": _longest(operations),
    }


def _summed(events: list[Any]) -> dict[str, tuple[float, int]]:
    """Name -> seconds that events of this name took themselves, without those within them, and how many there were."""
    found: dict[str, tuple[float, int]] = {}
    # Where each thread is: (end, name) of events that have begun.
    open_events: dict[int, list[tuple[int, str]]] = {}

    def add(name: str, nanoseconds: int, many: int) -> None:
        took, count = found.get(name, (0.0, 0))
        found[name] = took + nanoseconds / 1e9, count + many

    for event in sorted(events, key=lambda each: (each.start_ns(), -each.duration_ns())):
        start, length, name = event.start_ns(), event.duration_ns(), event.name()
        stack = open_events.setdefault(event.start_thread_id(), [])
        while stack and stack[-1][0] <= start:
            stack.pop()
        if stack:
            add(stack[-1][1], -length, 0)
        add(name, length, 1)
        stack.append((start + length, name))
    return found


def _longest(found: dict[str, tuple[float, int]]) -> list[list[Any]]:
    """Name, seconds and count of those that took longest."""
    return [[name, took, many] for name, (took, many) in sorted(found.items(), key=lambda item: -item[1][0])[:NAMED]]


def _counted(name: str) -> bool:
    return name in COUNTED or name.startswith("Memcpy")


def _functions(work: Callable[[], Any], device: torch.device) -> list[list[Any]]:
    """Which functions of Python took longest in some work, themselves: name, seconds, calls."""
    profiler = cProfile.Profile()
    profiler.enable()
    work()
    _wait(device)
    profiler.disable()
    table: Any = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    rows = [
        [f"{Path(file).name}:{line} {name}", own, calls] for (file, line, name), (_, calls, own, _, _) in table.items()
    ]
    return sorted(rows, key=lambda row: -row[1])[:NAMED]


def _packages() -> list[str]:
    """Third-party packages that are loaded."""
    names = {name.partition(".")[0] for name, module in sys.modules.items() if _installed(module)}
    return sorted(names)


def _installed(module: Any) -> bool:
    file = str(getattr(module, "__file__", "") or "")
    return (
        bool(file)
        and not file.startswith((sysconfig.get_path("stdlib") + os.sep + "lib-dynload", str(HERE.parent)))
        and ("site-packages" in file or not file.startswith(sysconfig.get_path("stdlib")))
    )


def _told(what: str) -> None:
    """How long everything has taken by now."""
    print(f"{time.perf_counter() - _BEGAN:.0f} s: {what}", file=sys.stderr, flush=True)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
