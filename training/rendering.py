"""Batches of view pairs, rendered by processes of their own while the network trains.

A process renders whole batches, on the device that the network trains on: process `i` of `n` those of steps `i`,
`i + n` and so on. What a batch shows depends on the seed and its step alone, however many processes there are.
"""

from __future__ import annotations

import queue
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training_scans import Scan
from views import LARGE, draw_shape, make_pair

#: Seconds after which it is looked whether a process that sends nothing is still there.
LOOK_EVERY_S = 5.0


@dataclass(frozen=True)
class Recipe:
    """How batches are drawn.

    Attributes:
        seed: Decides everything.
        voxels: Of one view, about.
        points: Of one pair.
        pairs: Of one batch; where views show a larger part of the body, fewer by as much as they are larger.
        mr_share: Share of pairs that show MR.
        contrast_steps: Steps over which maps of contrast and pairs between contrasts come in; 0: all at once.
    """

    seed: int
    voxels: int
    points: int
    pairs: int
    mr_share: float
    contrast_steps: int

    def batch(self, scans: Sequence[Scan], step: int) -> Batch:
        """The pairs of a step, all of one shape."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        shape, large = draw_shape(generator, budget=self.voxels)
        # Slowly at first: pairs that nothing can tell yet pull all descriptors together.
        share = min(1.0, step / self.contrast_steps) ** 2 if self.contrast_steps else 1.0
        pairs = [
            make_pair(scans, generator, shape=shape, count=self.points, mr_share=self.mr_share, contrast=share)
            for _ in range(max(1, self.pairs // LARGE) if large else self.pairs)
        ]
        return Batch(
            torch.stack([torch.stack([pair.views[side].image for pair in pairs]) for side in (0, 1)]).half().cpu(),
            torch.stack([torch.stack([pair.points[side] for pair in pairs]) for side in (0, 1)]).cpu(),
            torch.stack([pair.extra for pair in pairs]).cpu(),
            pairs[0].views[0].half_extent.cpu(),
            tuple(pair.modality for pair in pairs),
        )


@dataclass(frozen=True)
class Batch:
    """View pairs of one shape.

    Attributes:
        images: (2, B, X, Y, Z) float16, first and second views: what the network is shown.
        points: (2, B, N, 3) float32, view mm: row i shows the same anatomy in both.
        extra: (B, M, 3) float32, view mm in the second view: points without a partner.
        half_extent: (3,) float32 mm from the middle of a view to its faces.
        modalities: Of each pair.
    """

    images: torch.Tensor
    points: torch.Tensor
    extra: torch.Tensor
    half_extent: torch.Tensor
    modalities: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        """The same on a device, images in float32."""
        tensors = (self.images, self.points, self.extra, self.half_extent)
        images, *rest = (tensor.to(device, non_blocking=True) for tensor in tensors)
        return Batch(images.float(), *rest, self.modalities)


@contextmanager
def rendered(
    recipe: Recipe, scans: list[Scan], *, first: int, device: torch.device, processes: int
) -> Iterator[Iterator[Batch]]:
    """Batches of step `first`, `first + 1` and so on, as long as the context lasts.

    Raises:
        RuntimeError: By the iterator, where a process failed or is gone.
    """
    context = torch.multiprocessing.get_context("spawn")
    channels = [context.Queue(maxsize=2) for _ in range(processes)]
    workers = [
        context.Process(
            target=_render,
            args=(recipe, scans, range(first + i, 1 << 62, processes), str(device), channel),
            daemon=True,
        )
        for i, channel in enumerate(channels)
    ]
    for worker in workers:
        worker.start()
    try:
        yield _received(channels, workers)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


def _received(channels: list[Any], workers: list[Any]) -> Iterator[Batch]:
    turn = 0
    while True:
        try:
            sent = channels[turn].get(timeout=LOOK_EVERY_S)
        except queue.Empty:
            if not workers[turn].is_alive():
                raise RuntimeError(f"a process that renders views ended with code {workers[turn].exitcode}") from None
            continue
        if isinstance(sent, str):
            raise RuntimeError(f"views could not be rendered:\n{sent}")
        arrays, modalities = sent
        yield Batch(*(torch.from_numpy(array) for array in arrays), modalities)
        turn = (turn + 1) % len(channels)


def _render(recipe: Recipe, scans: list[Scan], steps: range, device: str, channel: Any) -> None:
    """What a process does: numpy arrays travel as bytes; tensors would take a file descriptor each."""
    torch.set_num_threads(1)
    try:
        here = [scan.to(torch.device(device)) for scan in scans]
        for step in steps:
            batch = recipe.batch(here, step)
            arrays: list[np.ndarray] = [
                tensor.numpy() for tensor in (batch.images, batch.points, batch.extra, batch.half_extent)
            ]
            channel.put((arrays, batch.modalities))
    except Exception:  # said by the process that trains
        channel.put(traceback.format_exc())
