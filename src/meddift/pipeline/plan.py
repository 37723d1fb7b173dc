"""Describing a match before it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meddift.pipeline.memory import estimate_memory

if TYPE_CHECKING:
    from meddift.pipeline.settings import Settings
    from meddift.volume import Volume


def plan_match(settings: Settings, fixed: Volume, moving: Volume, count: int) -> dict[str, Any]:
    """Describe what a match would do; see `Matcher.plan`.

    PyTorch is not loaded for it, so with the device "auto" scans are padded as on a processor until something else has
    determined the device.

    Args:
        settings: Model, options and runtime.
        fixed: The scan in which points are given.
        moving: The scan that is searched.
        count: Number of points.

    Returns:
        Ready for JSON: model, options, grids, stages, and the estimated peak memory in bytes.
    """
    options, extraction = settings.options, settings.extraction
    estimate = estimate_memory(settings.planned_spec, extraction, options, fixed.grid, moving.grid, count)
    scans = {"fixed": (fixed, estimate.fixed_network), "moving": (moving, estimate.moving_network)}

    def encoding(volume: Volume) -> str:
        if not extraction.network_levels:
            return "none: no level of the network is asked for"
        return str(settings.encoding_plan(volume.grid))

    described = {
        role: {"scan": repr(volume.grid), "network": repr(network), "encoding": encoding(volume)}
        for role, (volume, network) in scans.items()
    }
    return {
        "model": settings.spec.name,
        "options": options.describe(),
        "levels": list(extraction.levels),
        **described,
        "points": count,
        "memory_bytes": estimate.peak_bytes,
        "stages": [*estimate.stages],
    }
