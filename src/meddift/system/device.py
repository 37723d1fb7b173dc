"""The choice of the device and of the precision in which tensors are computed."""

from __future__ import annotations

import os
import re
from typing import Literal

from meddift.errors import OptionsError

Precision = Literal["auto", "float32", "bfloat16"]

#: How threads of OpenMP wait. Spinning makes everything several times slower as soon as another program needs a core;
#: on idle cores sleeping costs little. Spinning for a few microseconds bridges the gap between two operations, for
#: which waking a sleeping thread takes too long.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def before_torch() -> None:
    """Set environment variables that PyTorch reads when it is loaded; values that the user has set are kept.

    Without effect if PyTorch is already loaded.
    """
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)


def check_device_name(wanted: str) -> str:
    """Check the name of a device, but not whether the device exists (that would load torch).

    Args:
        wanted: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Returns:
        The same name.

    Raises:
        OptionsError: if it is none of "auto", "cpu", "cuda", "cuda:N" and "mps".
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", wanted):
        raise OptionsError(f"a device is auto, cpu, cuda, cuda:N or mps, got {wanted!r}")
    return wanted


def choose_device(wanted: str = "auto") -> str:
    """The device to compute on.

    Args:
        wanted: "auto" (CUDA where it works, else the CPU), "cpu", "cuda", "cuda:N", or "mps" (Apple's GPU).

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
    """The device for everything but the network: the same, or the CPU where it is Apple's GPU (no float64).

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

    Returns:
        "float32" or "bfloat16".

    Raises:
        OptionsError: if `wanted` is none of the three.
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
