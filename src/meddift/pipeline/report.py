"""The result of one match as a JSON dictionary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meddift.system.memory import peak_memory_bytes

if TYPE_CHECKING:
    from meddift.matching import Matches
    from meddift.pipeline import Pair
    from meddift.pipeline.accuracy import Accuracy


def match_report(pair: Pair, matches: Matches, accuracy: Accuracy | None = None) -> dict[str, Any]:
    """Collect the results of a match.

    Args:
        pair: The pair.
        matches: Its matches.
        accuracy: Errors against true positions, where these are known.

    Returns:
        `points`, one entry for each with coordinates in world RAS mm; `timing`, seconds for each stage;
        `peak_memory_bytes`; `provenance`; and with `accuracy` also `tre_mm` over the points whose true position lies
        inside the moving scan, `tre_ok_mm` over those with the verdict "ok", and `truth_outside_moving`.
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
