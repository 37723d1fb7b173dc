"""A value is computed by one thread while others wait; what failed is tried again; what was forgotten is made anew."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from meddift.system.once import forget, known, once


class Thing:
    def __init__(self) -> None:
        self.calls: list[int] = []
        self.fails = 0

    @once
    def value(self) -> object:
        """Some object."""
        self.calls.append(threading.get_ident())
        time.sleep(0.05)
        if self.fails:
            self.fails -= 1
            raise ValueError("not yet")
        return object()

    @once
    def twice(self) -> tuple[object, object]:
        return self.value, self.value


def test_many_threads_get_one_value_that_one_of_them_computed() -> None:
    thing, start = Thing(), threading.Barrier(8)

    def ask(_: int) -> object:
        start.wait()
        return thing.value

    with ThreadPoolExecutor(8) as pool:
        found = set(map(id, pool.map(ask, range(8))))
    assert len(thing.calls) == len(found) == 1
    assert Thing.value.__doc__ == "Some object."


def test_objects_do_not_share_and_values_may_need_each_other() -> None:
    one, other = Thing(), Thing()
    assert one.value is not other.value
    assert one.twice == (one.value, one.value)


def test_what_failed_is_tried_again_and_what_was_forgotten_is_made_anew() -> None:
    thing = Thing()
    thing.fails = 1
    with pytest.raises(ValueError, match="not yet"):
        _ = thing.value
    assert not known(thing, "value")
    first = thing.value
    assert known(thing, "value")
    forget(thing, "value")
    assert thing.value is not first
    assert len(thing.calls) == 3
