"""Readers of data sets; each layout is converted to `Case` objects.

Names are loaded on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift_lab.sets.catalogue import DATA_SETS, DataSet
    from meddift_lab.sets.fetch import fetch_data_set
    from meddift_lab.sets.finding import find_cases

#: Public name -> module that defines it.
_HOME = {
    "DATA_SETS": "meddift_lab.sets.catalogue",
    "DataSet": "meddift_lab.sets.catalogue",
    "fetch_data_set": "meddift_lab.sets.fetch",
    "find_cases": "meddift_lab.sets.finding",
}

__all__ = ["DATA_SETS", "DataSet", "fetch_data_set", "find_cases"]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
