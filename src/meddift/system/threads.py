"""Many small pieces of work on several processors: one thread a piece, instead of all threads on every operation.

An operation on what fits into a processor's cache takes less time than it takes to wake up and gather threads for it.

How many threads an operation of PyTorch takes is kept by each thread for itself, and taken over from the whole program
when a thread computes for the first time. So it is never changed in a thread that calls us: there are threads of our
own, made once, that have said "one" and are used by all callers in turn.
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

#: Threads of our own, by how many they are.
_pools: dict[int, ThreadPoolExecutor] = {}
_making = threading.Lock()


def for_each(pieces: Iterable[Piece], work: Callable[[Piece], None], *, device: str = "cpu") -> None:
    """Do independent work on each piece, on as many processors as PyTorch may use in the thread that calls.

    PyTorch computes on a single thread within the work, so what it computes does not depend on their number, nor on
    what other threads of the program do. May be called from any number of threads, which then share the processors.

    Args:
        pieces: What to work on.
        work: Called with each piece, from several threads at a time; writes to places of its own.
        device: Where the work is computed. A graphics card computes in parallel by itself: pieces are done one after
            the other in the thread that calls.

    Raises:
        Exception: what `work` raises; pieces that were not begun by then are left.
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
    """Do the same with a few large, independent pieces of work, as `for_each` does small ones.

    Args:
        pieces: What to work on; a single one is done where it is, on as many threads as there are.
        work: Called with each piece.
        device: Where is computed: other devices than a processor are kept busy by one thread, one piece after another.

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
    """So many threads in which PyTorch computes on one each."""
    with _making:
        if count not in _pools:
            pool = ThreadPoolExecutor(count, thread_name_prefix="meddift")
            gate = threading.Barrier(count)
            usual = [future.result() for future in [pool.submit(_alone, gate) for _ in range(count)]]
            _put_back(usual[0])
            _pools[count] = pool
        return _pools[count]


def _alone(gate: threading.Barrier) -> int:
    """Make PyTorch compute on one thread in this one from now on; returns what it would have taken otherwise."""
    usual = torch.get_num_threads()
    gate.wait()  # all have asked before the first says anything
    torch.set_num_threads(1)
    return usual


def _put_back(usual: int) -> None:
    """What a thread says of itself is also what threads yet to come take over: one of no further use undoes that."""
    last = threading.Thread(target=torch.set_num_threads, args=(usual,))
    last.start()
    last.join()


def on_threads(count: int, work: Callable[[], Result]) -> Result:
    """Do some work with PyTorch computing on so many threads, whatever it takes elsewhere in the program.

    The work is done in a thread of its own, in which alone that number holds.

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
    """A child process has none of its parent's threads, and none of them holds a lock."""
    global _making
    _pools.clear()
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
