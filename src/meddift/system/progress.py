"""Reports of progress."""

from __future__ import annotations

from collections.abc import Callable

#: Called with the name of a stage and the share of the whole work that is done, 0 to 1.
Progress = Callable[[str, float], None]


def silent(stage: str, fraction: float) -> None:
    """Ignore the report; a `Progress` for callers that want none."""
