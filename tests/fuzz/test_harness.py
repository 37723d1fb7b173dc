"""The harness finds what it is there for, and the same damage belongs to the same number."""

from __future__ import annotations

import sys

import pytest
from harness import fuzz
from mutations import mutated

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of time and memory are those of Linux")

SEEDS = {"seed.txt": b"good"}


def test_a_careful_reader_has_no_faults() -> None:
    assert fuzz("toy_readers:careful", SEEDS, count=300) == []


@pytest.mark.parametrize(
    ("reader", "what"),
    [
        ("of_other_people", "KeyError"),
        ("warning", "UserWarning"),
        ("slow", "processor time"),
        ("greedy", "MemoryError"),
        ("dying", "died of SIGSEGV"),
    ],
)
def test_each_kind_of_fault_is_told_with_its_number(reader: str, what: str) -> None:
    faults = fuzz(f"toy_readers:{reader}", SEEDS, count=2, first=1)
    assert [fault.number for fault in faults] == [1, 2]
    assert all(what in fault.what for fault in faults), faults


def test_a_good_file_that_is_not_read_is_told() -> None:
    with pytest.raises(AssertionError, match="does not read the good files"):
        fuzz("toy_readers:of_other_people", {"seed.txt": b"bad"}, count=1)


def test_damage_depends_on_the_number_alone() -> None:
    seeds = {"a": bytes(range(256)), "b": b"Parameters: 1 2 3\n"}
    once, again = ([mutated(seeds, number) for number in range(200)] for _ in range(2))
    assert once == again
    assert len({content for _, content in once}) > 180
