"""Lesions of one patient over time: identity, growth, disappearance, new lesions.

    follow_up = meddift.track("patient.csv", "results")

Nothing heavy is loaded until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift.tracking.result import FollowUp
    from meddift.tracking.run import track
    from meddift.tracking.timepoints import TimePoint, read_time_points

#: Public name -> module that defines it. Loaded on first use (PEP 562).
_HOME = {
    "FollowUp": "meddift.tracking.result",
    "TimePoint": "meddift.tracking.timepoints",
    "read_time_points": "meddift.tracking.timepoints",
    "track": "meddift.tracking.run",
}

__all__ = ["FollowUp", "TimePoint", "read_time_points", "track"]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
