"""Telling how far work has come."""

from __future__ import annotations

from collections.abc import Callable

#: Called with the name of a stage and the share of the whole work that is done, 0 to 1.
Progress = Callable[[str, float], None]


def silent(stage: str, fraction: float) -> None:
    """Tell nobody."""


def part_of(progress: Progress, start: float, stop: float) -> Progress:
    """Progress of a part of the work.

    Args:
        progress: That of the whole.
        start: Share of the whole that is done when the part begins.
        stop: The same when it ends.
    """

    def report(stage: str, fraction: float) -> None:
        progress(stage, start + (stop - start) * fraction)

    return report
