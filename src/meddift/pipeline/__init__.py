"""Matching and registration of pairs of scans: `Matcher`, `EncodedScan`, `Pair` and their options.

Names are loaded on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift.pipeline.matcher import Matcher, match
    from meddift.pipeline.options import Options
    from meddift.pipeline.pair import Pair
    from meddift.pipeline.runtime import Runtime
    from meddift.pipeline.scan import EncodedScan

#: Public name -> module that defines it.
_HOME = {
    "EncodedScan": "meddift.pipeline.scan",
    "Matcher": "meddift.pipeline.matcher",
    "Options": "meddift.pipeline.options",
    "Pair": "meddift.pipeline.pair",
    "Runtime": "meddift.pipeline.runtime",
    "match": "meddift.pipeline.matcher",
}

__all__ = ["EncodedScan", "Matcher", "Options", "Pair", "Runtime", "match"]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
