"""meddift's own methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meddift.points import Points
from meddift.registration import sampled
from meddift.registration.carrying import carry_points
from meddift.volume import Volume
from meddift_lab.methods.answer import Answer, Floats


def match(fixed: Volume, moving: Volume, points: Floats, *, settings: Mapping[str, Any], work: Path) -> Answer:
    """`Pair.match`, with features computed anew."""
    pair = _pair(fixed, moving, settings)
    found = pair.match(Points(points))
    details = {
        "verdict": list(found.verdict),
        "reason": list(found.reason),
        "timing_s": dict(pair.timing),
        "provenance": pair.provenance,
    }
    return Answer(found.moving.positions, None, details)


def register(fixed: Volume, moving: Volume, points: Floats, *, settings: Mapping[str, Any], work: Path) -> Answer:
    """`Pair.register`, with features computed anew."""
    pair = _pair(fixed, moving, settings)
    found = pair.register()
    carried = carry_points(found, Points(points), fixed.grid, moving.grid)
    details = {
        "verdict": list(carried.verdict),
        "reason": list(carried.reason),
        "timing_s": {**pair.timing, **found.timing},
        "provenance": pair.provenance,
        "registration": dict(found.provenance),
    }
    return Answer(found.transform.apply(points), lambda grid: sampled(found.transform, grid), details)


def _pair(fixed: Volume, moving: Volume, settings: Mapping[str, Any]) -> Any:
    from meddift.pipeline import Matcher

    options = dict(settings)
    levels = options.pop("levels", None)
    if levels is not None:
        options["levels"] = tuple(levels)
    matcher = Matcher(options.pop("model"), options.pop("preset"), device="cpu", store=False, **options)
    return matcher.pair(fixed, moving)
