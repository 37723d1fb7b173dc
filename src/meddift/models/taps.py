"""Reading feature maps out of a U-Net as it runs: forward hooks, removed again whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

from meddift.errors import OptionsError


class _EnoughError(Exception):
    """Raised inside a forward pass once the last wanted map has been read; never leaves `run_and_tap`."""


def run_and_tap(network: torch.nn.Module, levels: Sequence[str], **inputs: Any) -> dict[str, torch.Tensor]:
    """Run a U-Net just far enough to read the named levels.

    Args:
        network: A MONAI diffusion U-Net with `middle_block` and `up_blocks`.
        levels: Names: `middle`, `up0`, `up1` ... (decoder blocks, coarse to fine, each including its upsampler).
        **inputs: Arguments of the network's forward.

    Returns:
        For each name (N, C, x, y, z), detached, in the order asked for.

    Raises:
        OptionsError: if a level does not exist in this network, or none is asked for.
    """
    stages = _stages(network)
    unknown = [name for name in levels if name not in stages]
    if unknown or not levels:
        raise OptionsError(f"levels {unknown} do not exist in this network; it has {', '.join(stages)}")
    last = max(levels, key=list(stages).index)
    found: dict[str, torch.Tensor] = {}
    with _hooked({name: stages[name] for name in levels}, found, stop_at=last), suppress(_EnoughError):
        network(**inputs)
    return {name: found[name] for name in levels}


def _stages(network: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """All stages that can be read, by name, in the order in which they run."""
    blocks: Any = network.up_blocks
    middle: Any = network.middle_block
    return {"middle": middle, **{f"up{i}": block for i, block in enumerate(blocks)}}


@contextmanager
def _hooked(modules: dict[str, torch.nn.Module], found: dict[str, torch.Tensor], *, stop_at: str) -> Iterator[None]:
    """Hooks on modules that keep their outputs, and stop the run at the last one."""

    def keep(name: str) -> Any:
        def hook(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            found[name] = output.detach()
            if name == stop_at:
                raise _EnoughError

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
