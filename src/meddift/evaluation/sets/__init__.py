"""Data sets: whatever their layout, they become `Case` objects.

Names are loaded on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.lazy import lazy_names

if TYPE_CHECKING:
    from meddift.evaluation.sets.catalogue import DATA_SETS, DataSet
    from meddift.evaluation.sets.fetch import fetch_data_set
    from meddift.evaluation.sets.finding import find_cases

#: Public name -> module that defines it.
_HOME = {
    "DATA_SETS": "meddift.evaluation.sets.catalogue",
    "DataSet": "meddift.evaluation.sets.catalogue",
    "fetch_data_set": "meddift.evaluation.sets.fetch",
    "find_cases": "meddift.evaluation.sets.finding",
}

__all__ = ["DATA_SETS", "DataSet", "fetch_data_set", "find_cases"]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
