"""Many small pieces of work on several processors: one thread a piece, instead of all threads on every operation.

An operation on what fits into a processor's cache takes less time than it takes to wake up and gather threads for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Piece = TypeVar("Piece")


def for_each(pieces: Iterable[Piece], work: Callable[[Piece], None]) -> None:
    """Do independent work on each piece, on as many processors as PyTorch may use.

    PyTorch computes on a single thread within the work, so what it computes does not depend on their number.

    Args:
        pieces: What to work on.
        work: Called with each piece, from several threads at a time; writes to places of its own.

    Raises:
        Exception: what `work` raises; pieces that were not begun by then are left.
    """
    count = torch.get_num_threads()
    todo = list(pieces)
    # Threads that begin now take this number over; it is put back for everyone else in the end.
    torch.set_num_threads(1)
    try:
        if count == 1 or len(todo) < 2:
            for piece in todo:
                work(piece)
            return
        with ThreadPoolExecutor(min(count, len(todo)), thread_name_prefix="meddift") as pool:
            futures = [pool.submit(work, piece) for piece in todo]
            try:
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()
    finally:
        torch.set_num_threads(count)
