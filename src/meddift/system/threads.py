"""Many small pieces of work in parallel: one thread for each piece, instead of all threads for every operation.

An operation on data that fits into a processor's cache takes less time than waking up several threads for it.

PyTorch keeps the number of threads of an operation for each calling thread. A new thread starts with the number that
was set last in the program. That number is never changed in the caller's thread: the work runs in pools of threads,
which are created once, set to one thread for each operation, and shared by all callers.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")

#: Pools of threads by their size.
_pools: dict[int, ThreadPoolExecutor] = {}
_making = threading.Lock()


def for_each(pieces: Iterable[Piece], work: Callable[[Piece], None], *, device: str = "cpu") -> None:
    """Do independent work on each piece, on as many processors as PyTorch may use in the thread that calls.

    PyTorch computes on a single thread within the work, so results depend neither on the number of threads nor on
    what other threads of the program do. May be called from any number of threads, which then share the processors.

    Args:
        pieces: What to work on.
        work: Called with each piece, from several threads at a time; writes to places of its own.
        device: Where the work is computed. A graphics card computes in parallel by itself: pieces are done one after
            the other in the thread that calls.

    Raises:
        Exception: what `work` raises; pieces that have not begun by then are skipped.
    """
    count = torch.get_num_threads()
    todo = list(pieces)
    if count == 1 or device != "cpu":
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


def side_by_side(pieces: Iterable[Piece], work: Callable[[Piece], Result], *, device: str = "cpu") -> list[Result]:
    """Do a few large, independent pieces of work in parallel and return their results.

    Args:
        pieces: What to work on; a single one is done in the calling thread, with all threads of PyTorch.
        work: Called with each piece.
        device: Where the work is computed; on other devices than the CPU, pieces are done one after the other.

    Returns:
        What `work` returns, in the order of the pieces.
    """
    todo = list(pieces)
    if len(todo) < 2 or device != "cpu":
        return [work(piece) for piece in todo]
    done: dict[int, Result] = {}

    def keep(number: int) -> None:
        done[number] = work(todo[number])

    for_each(range(len(todo)), keep)
    return [done[number] for number in range(len(todo))]


def _pool(count: int) -> ThreadPoolExecutor:
    """A pool of `count` threads, in each of which PyTorch computes on one thread."""
    with _making:
        if count not in _pools:
            pool = ThreadPoolExecutor(count, thread_name_prefix="meddift")
            gate = threading.Barrier(count)
            usual = [future.result() for future in [pool.submit(_alone, gate) for _ in range(count)]]
            _put_back(usual[0])
            _pools[count] = pool
        return _pools[count]


def _alone(gate: threading.Barrier) -> int:
    """Set PyTorch to one thread within the calling thread; returns the number before."""
    usual = torch.get_num_threads()
    gate.wait()  # every thread reads the old number before one of them sets the new one
    torch.set_num_threads(1)
    return usual


def _put_back(usual: int) -> None:
    """Restore the number that new threads start with: the one set last, here by a thread that ends at once."""
    last = threading.Thread(target=torch.set_num_threads, args=(usual,))
    last.start()
    last.join()


def on_threads(count: int, work: Callable[[], Result]) -> Result:
    """Do some work with PyTorch computing on `count` threads, whatever is set elsewhere in the program.

    The work is done in a separate thread; the number holds only there.

    Args:
        count: At least 1.
        work: Called without arguments.

    Returns:
        What `work` returns; what it raises is raised here.
    """
    if torch.get_num_threads() == count:
        return work()
    done: Future[Result] = Future()

    def run() -> None:
        with _making:
            usual = torch.get_num_threads()
            torch.set_num_threads(count)
            _put_back(usual)
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name="meddift-work", daemon=True).start()
    return done.result()


def _begin_anew() -> None:
    """Forget pools and locks after a fork: a child process has none of its parent's threads."""
    global _making
    _pools.clear()
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
