"""Many small pieces of work on several processors: one thread a piece, instead of all threads on every operation.

An operation on what fits into a processor's cache takes less time than it takes to wake up and gather threads for it.

How many threads an operation of PyTorch takes is kept by each thread for itself, and taken over from the whole program
when a thread computes for the first time. So it is never changed in a thread that calls us: there are threads of our
own, made once, that have said "one" and are used by all callers in turn.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Piece = TypeVar("Piece")

#: Threads of our own, by how many they are.
_pools: dict[int, ThreadPoolExecutor] = {}
_making = threading.Lock()


def for_each(pieces: Iterable[Piece], work: Callable[[Piece], None]) -> None:
    """Do independent work on each piece, on as many processors as PyTorch may use in the thread that calls.

    PyTorch computes on a single thread within the work, so what it computes does not depend on their number, nor on
    what other threads of the program do. May be called from any number of threads, which then share the processors.

    Args:
        pieces: What to work on.
        work: Called with each piece, from several threads at a time; writes to places of its own.

    Raises:
        Exception: what `work` raises; pieces that were not begun by then are left.
    """
    count = torch.get_num_threads()
    todo = list(pieces)
    if count == 1:
        for piece in todo:
            work(piece)
        return
    futures = [_pool(count).submit(work, piece) for piece in todo]
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()


def _pool(count: int) -> ThreadPoolExecutor:
    """So many threads in which PyTorch computes on one each."""
    with _making:
        if count not in _pools:
            pool = ThreadPoolExecutor(count, thread_name_prefix="meddift")
            gate = threading.Barrier(count)
            usual = [future.result() for future in [pool.submit(_alone, gate) for _ in range(count)]]
            # Saying "one" has set what threads yet to come take over, too: a thread of no further use puts that back.
            last = threading.Thread(target=torch.set_num_threads, args=(usual[0],))
            last.start()
            last.join()
            _pools[count] = pool
        return _pools[count]


def _alone(gate: threading.Barrier) -> int:
    """Make PyTorch compute on one thread in this one from now on; returns what it would have taken otherwise."""
    usual = torch.get_num_threads()
    gate.wait()  # all have asked before the first says anything
    torch.set_num_threads(1)
    return usual


# A child process has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)
