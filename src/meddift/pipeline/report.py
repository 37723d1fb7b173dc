"""The result of one run as plain numbers and words, for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meddift.system.memory import peak_memory_bytes

if TYPE_CHECKING:
    from meddift.matching import Matches
    from meddift.pipeline import Pair
    from meddift.pipeline.accuracy import Accuracy


def match_report(pair: Pair, matches: Matches, accuracy: Accuracy | None = None) -> dict[str, Any]:
    """Everything that is known after a match.

    Args:
        pair: The two scans.
        matches: What was found.
        accuracy: Errors against the truth, where it is known.

    Returns:
        `points`, one row each with coordinates in world RAS mm; `timing`, seconds by stage; `peak_memory_bytes`;
        `provenance`; and with `accuracy`: `tre_mm` over the points whose truth lies inside the moving scan,
        `tre_ok_mm` over those of them with the verdict ok, and `truth_outside_moving`.
    """
    content: dict[str, Any] = {
        "points": matches.rows(),
        "timing": {stage: float(seconds) for stage, seconds in pair.timing.items()},
        "peak_memory_bytes": peak_memory_bytes(),
        "provenance": pair.provenance,
    }
    if accuracy is not None:
        content |= accuracy.as_dict()
    return content
