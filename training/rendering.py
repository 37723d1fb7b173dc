"""Batches of view pairs, rendered by processes of their own while the network trains.

A process renders whole batches, on the device that the network trains on: process `i` of `n` those of steps `i`,
`i + n` and so on. What a batch shows depends on the seed and its step alone, however many processes there are.
Each batch comes as a file of its own; a thread reads the next ones and brings them to the device ahead of the trainer.
"""

from __future__ import annotations

import itertools
import multiprocessing
import queue
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training_scans import Scan
from views import LARGE, draw_shape, make_pair

#: Seconds after which it is looked whether a process that sends nothing is still there.
LOOK_EVERY_S = 5.0
#: Seconds after which a process that does not end is killed.
END_WITHIN_S = 10.0
#: Batches that lie ready on the device.
READY = 3


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
            torch.stack([torch.stack([pair.views[side].image.half() for pair in pairs]) for side in (0, 1)]),
            torch.stack([torch.stack([pair.points[side] for pair in pairs]) for side in (0, 1)]),
            torch.stack([pair.extra for pair in pairs]),
            pairs[0].views[0].half_extent,
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

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All of them, in the order of the fields."""
        return self.images, self.points, self.extra, self.half_extent


@contextmanager
def rendered(
    recipe: Recipe, scans: list[Scan], *, first: int, device: torch.device, processes: int
) -> Iterator[Iterator[Batch]]:
    """Batches of step `first`, `first + 1` and so on, on the device, as long as the context lasts.

    Raises:
        RuntimeError: By the iterator, where a process failed or is gone.
    """
    context = torch.multiprocessing.get_context("spawn")
    channels = [context.Queue(maxsize=2) for _ in range(processes)]
    ended = context.Event()
    with tempfile.TemporaryDirectory(prefix="views-", ignore_cleanup_errors=True) as folder:
        workers = [
            context.Process(
                target=_render,
                args=(recipe, scans, range(first + i, 1 << 62, processes), str(device), Path(folder), channel, ended),
                daemon=True,
            )
            for i, channel in enumerate(channels)
        ]
        for worker in workers:
            worker.start()
        ready: queue.Queue[Any] = queue.Queue(maxsize=READY)
        receiver = threading.Thread(target=_receive, args=(channels, workers, device, ready, ended), daemon=True)
        receiver.start()
        try:
            yield _taken(ready, device)
        finally:
            ended.set()
            receiver.join()
            # They end by themselves: one that is killed with work on the device may take others there along.
            for worker in workers:
                worker.join(END_WITHIN_S)
            for worker in workers:
                worker.terminate()


def _taken(ready: queue.Queue[Any], device: torch.device) -> Iterator[Batch]:
    """What the trainer sees: its stream waits for the copy of a batch, it itself does not."""
    while True:
        item = ready.get()
        if isinstance(item, str):
            raise RuntimeError(item)
        batch, copied = item
        if copied is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(copied)
            for tensor in batch.tensors:
                tensor.record_stream(stream)
        yield batch


def _receive(
    channels: list[Any], workers: list[Any], device: torch.device, ready: queue.Queue[Any], ended: Any
) -> None:
    """What the thread does: read batches in the order of their steps and copy them on a stream of its own."""

    try:
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        for turn in itertools.cycle(range(len(channels))):
            sent = _next_from(channels[turn], workers[turn], ended)
            if sent is None:
                return
            file, modalities = sent
            tensors = torch.load(file, mmap=True, weights_only=True)
            file.unlink()
            if stream is None:
                _put(ready, (Batch(*tensors, modalities), None), ended.is_set)
                continue
            with torch.cuda.stream(stream):
                tensors = [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
                _put(ready, (Batch(*tensors, modalities), stream.record_event()), ended.is_set)
    except Exception as error:  # said by the trainer
        _put(ready, str(error), ended.is_set)


def _put(channel: Any, item: Any, unwanted: Callable[[], bool]) -> None:
    """Put into a queue, or give it up where nothing is wanted any more."""
    placed = False
    while not placed and not unwanted():
        with suppress(queue.Full):
            channel.put(item, timeout=0.2)
            placed = True


def _next_from(channel: Any, worker: Any, ended: Any) -> tuple[Path, tuple[str, ...]] | None:
    """What a process sent; None where nothing is wanted any more."""
    waited = 0.0
    while not ended.is_set():
        try:
            sent = channel.get(timeout=min(0.2, LOOK_EVERY_S))
        except queue.Empty:
            waited += 0.2
            if waited >= LOOK_EVERY_S and not worker.is_alive():
                raise RuntimeError(f"a process that renders views ended with code {worker.exitcode}") from None
            continue
        if isinstance(sent, str):
            raise RuntimeError(f"views could not be rendered:\n{sent}")
        return sent
    return None


def _render(
    recipe: Recipe, scans: list[Scan], steps: range, device: str, folder: Path, channel: Any, ended: Any
) -> None:
    """What a process does: a queue would carry tensors through a pipe, in pieces that the trainer has to read."""
    torch.set_num_threads(1)
    torch.serialization.set_crc32_options(False)
    trainer = multiprocessing.parent_process()

    def unwanted() -> bool:
        return ended.is_set() or not (trainer and trainer.is_alive())

    try:
        here = [scan.to(torch.device(device)) for scan in scans]
        for step in steps:
            batch = recipe.batch(here, step)
            file = folder / f"{step}.pt"
            torch.save([tensor.cpu() for tensor in batch.tensors], file)
            _put(channel, (file, batch.modalities), unwanted)
            if unwanted():
                return
    except Exception:  # said by the process that trains
        _put(channel, traceback.format_exc(), unwanted)
