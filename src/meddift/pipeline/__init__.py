"""Floor 4: one pair of scans. Set a model and options once, set two scans, then ask.

Names are loaded on first use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meddift.pipeline.matcher import Matcher
    from meddift.pipeline.options import Options
    from meddift.pipeline.pair import Pair

#: Public name -> module that defines it.
_HOME = {
    "Matcher": "meddift.pipeline.matcher",
    "Options": "meddift.pipeline.options",
    "Pair": "meddift.pipeline.pair",
}

__all__ = ["Matcher", "Options", "Pair"]


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module 'meddift.pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
