"""Which encoded scans stay in memory while a patient is followed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from meddift.tracking.loading import Encoded


@pytest.mark.parametrize(("times", "most"), [(2, 3), (5, 3), (9, 3), (6, 4)])
def test_each_scan_is_read_once_and_no_more_than_a_few_are_held(times: int, most: int) -> None:
    read: list[str] = []

    def encode(scan: str) -> str:
        read.append(scan)
        return f"encoded {scan}"

    scans = Encoded([SimpleNamespace(scan=f"scan {k}") for k in range(times)], encode, most=most)  # type: ignore[misc]
    # As every follow-up scan is compared: with the one before, with the first one, and back.
    for k in range(1, times):
        for source, target in ((k - 1, k), (0, k), (k, k - 1)):
            assert scans.get(source, beside=target) == f"encoded scan {source}"
            assert scans.get(target, beside=source) == f"encoded scan {target}"
            assert len(scans._held) <= most
    assert read == [f"scan {k}" for k in range(times)]


def test_with_room_for_two_the_pair_that_is_compared_is_in_memory() -> None:
    scans = Encoded([SimpleNamespace(scan=k) for k in range(5)], lambda scan: scan, most=2)  # type: ignore[misc]
    for source, target in ((0, 1), (1, 2), (0, 2), (3, 4), (0, 4), (4, 3)):
        assert scans.get(source, beside=target) == source
        assert scans.get(target, beside=source) == target
        assert set(scans._held) == {source, target}
