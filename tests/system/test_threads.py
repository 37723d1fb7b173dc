"""Independent pieces of work on several threads: all done, errors raised, PyTorch left as it was."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from meddift.system.threads import for_each, on_threads, side_by_side


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_piece_is_done_once_on_single_threads(threads):
    result, inside, workers = np.zeros(50, dtype=int), set(), set()

    def work(piece):
        result[piece] += piece * piece
        inside.add(torch.get_num_threads())
        workers.add(threading.get_ident())

    for_each(range(50), work)
    np.testing.assert_array_equal(result, np.arange(50) ** 2)
    assert inside == {1}
    assert len(workers) <= threads
    assert torch.get_num_threads() == threads


def test_an_error_is_raised_and_the_number_of_threads_put_back(threads):
    def work(piece):
        if piece == 3:
            raise ValueError("piece 3")

    with pytest.raises(ValueError, match="piece 3"):
        for_each(range(20), work)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_results_of_large_pieces_come_in_their_order(threads, device):
    gate = threading.Barrier(2, timeout=0.2)

    def work(piece):
        met = True
        try:
            gate.wait()
        except threading.BrokenBarrierError:
            met = False
        return piece * piece, torch.get_num_threads(), met

    found = side_by_side([5, 3], work, device=device)
    assert [square for square, _, _ in found] == [25, 9]
    # Together where there are several processors and the work is theirs, else one after the other.
    assert {met for _, _, met in found} == {threads > 1 and device == "cpu"}
    assert side_by_side([4], work, device=device)[0][:2] == (16, threads)


def test_work_may_itself_be_made_of_pieces(threads):
    total = np.zeros((4, 5))

    def outer(i):
        def inner(j):
            total[i, j] += 1

        for_each(range(5), inner)

    for_each(range(4), outer)
    assert (total == 1).all()
    assert torch.get_num_threads() == threads


def test_nothing_to_do_is_nothing_done(threads):
    for_each([], lambda piece: pytest.fail("called"))
    assert torch.get_num_threads() == threads


def test_the_calling_thread_and_threads_to_come_never_see_another_number(threads):
    """Asked again and again while pools and threads of other numbers come and go."""
    seen, stop = set(), threading.Event()

    def watch():
        while not stop.is_set():
            seen.add(torch.get_num_threads())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for count in (threads, 4, threads + 1):
        assert on_threads(count, torch.get_num_threads) == count
        for_each(range(8), lambda piece: torch.ones(100).sum())
        assert torch.get_num_threads() == threads
    stop.set()
    watcher.join()
    assert seen == {threads}
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [threads]


def test_work_on_other_threads_hands_on_what_it_returns_and_raises(threads):
    assert on_threads(threads + 2, lambda: "answer") == "answer"
    with pytest.raises(ValueError, match="as it was"):
        on_threads(threads + 2, lambda: (_ for _ in ()).throw(ValueError("as it was")))
