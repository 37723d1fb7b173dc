"""Where tensors are computed: said by name, checked before anything depends on it."""

from __future__ import annotations

import os
import re
from typing import Literal

from meddift.errors import OptionsError

Precision = Literal["auto", "float32", "bfloat16"]


def before_torch() -> None:
    """Set what PyTorch reads from the environment when it is loaded; whoever has said something else keeps it.

    Where PyTorch is loaded already this changes nothing.
    """
    # Threads that wait for each other by spinning make everything several times slower as soon as another program
    # wants a core (the demo on two busy cores: 194 s spinning, 79 s sleeping; on idle ones 23 and 25 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A few microseconds of spinning bridge the gap between two operations, which waking a sleeping thread does not.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Large tensors on large pages: a third of the time of memory-bound layers went into page faults (Linux).
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def check_device_name(wanted: str) -> str:
    """A device by name, without looking whether it is there (that would load torch).

    Raises:
        OptionsError: if it is none of "auto", "cpu", "cuda", "cuda:N" and "mps".
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", wanted):
        raise OptionsError(f"a device is auto, cpu, cuda, cuda:N or mps, got {wanted!r}")
    return wanted


def choose_device(wanted: str = "auto") -> str:
    """The device to compute on.

    Args:
        wanted: "auto" (CUDA where it works, else the CPU), "cpu", "cuda", "cuda:N", or "mps" (a GPU of Apple's).

    Returns:
        "cpu", "cuda:N" or "mps".

    Raises:
        OptionsError: if the name makes no sense, or there is no such device on this machine.
    """
    check_device_name(wanted)
    if wanted == "cpu":
        return "cpu"
    import torch

    if wanted == "mps":
        if not (torch.backends.mps.is_available() and _works("mps")):
            raise OptionsError(
                "this machine has no GPU of Apple's that PyTorch can use (mps). Use --device auto or cpu"
            )
        return "mps"
    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() and _works("cuda:0") else "cpu"
    name = "cuda:0" if wanted == "cuda" else wanted
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(name.split(":")[1]) >= count:
        there = f"there are cuda:0 to cuda:{count - 1}" if count else "there is none that PyTorch can use"
        raise OptionsError(f"this machine has no CUDA device {wanted}; {there}. Use --device auto or cpu")
    return name


def beside_network(device: str) -> str:
    """Where all but the network is computed: on its device, but for Apple's GPUs, which lack double precision.

    Args:
        device: Where the network computes, as `choose_device` returns it.

    Returns:
        "cpu" or "cuda:N".
    """
    return "cpu" if device == "mps" else device


def _works(device: str) -> bool:
    """Whether the driver can run PyTorch's kernels: old cards are listed, but no kernel is built for them."""
    import torch

    try:
        return bool((torch.ones(2, device=device) + 1).sum().item() == 4.0)
    except RuntimeError:
        return False


def choose_precision(wanted: str, device: str) -> Literal["float32", "bfloat16"]:
    """The precision in which a network computes.

    Args:
        wanted: "float32", "bfloat16", or "auto": bfloat16 where the device has arithmetic for it. Elsewhere it is
            emulated, and far slower than float32.
        device: As `choose_device` returns it.

    Raises:
        OptionsError: if the precision has no such name.
    """
    if wanted == "float32":
        return "float32"
    if wanted == "bfloat16":
        return "bfloat16"
    if wanted != "auto":
        raise OptionsError(f"precision must be auto, float32 or bfloat16, got {wanted!r}")
    import torch

    if device == "cpu":
        probes = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
        native = any(probe is not None and bool(probe()) for probe in probes)
    else:
        native = device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float32"
