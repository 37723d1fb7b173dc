"""Process many pairs of scans or many patients: each scan is encoded once, and a stopped run can be resumed.

Cases run in processes of this machine, or as actors of a Ray cluster.

    from meddift import cohort

    outcome = cohort.run(cohort.Plan("pairs.csv", "results", do=("match", "register")))

Nothing heavy is loaded until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift.cohort.plan import Files, Plan
    from meddift.cohort.running import Outcome, report, run

#: Public name -> module that defines it. Loaded on first use (PEP 562).
_HOME = {
    "Files": "meddift.cohort.plan",
    "Outcome": "meddift.cohort.running",
    "Plan": "meddift.cohort.plan",
    "report": "meddift.cohort.running",
    "run": "meddift.cohort.running",
}

__all__ = ["Files", "Outcome", "Plan", "report", "run"]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
