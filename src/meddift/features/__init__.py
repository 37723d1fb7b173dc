"""Floor 2: what is known about a scan at every place: feature maps, how they are made, whitened and kept.

Names are loaded on first use (PEP 562); nothing here takes torch until features are computed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meddift.features.extraction import ExtractionOptions, extract_pyramid
    from meddift.features.mind import mind_level
    from meddift.features.pyramid import Level, Pyramid
    from meddift.features.store import FeatureStore
    from meddift.features.whitening import whiten_pair

#: Public name -> module that defines it.
_HOME = {
    "ExtractionOptions": "meddift.features.extraction",
    "FeatureStore": "meddift.features.store",
    "Level": "meddift.features.pyramid",
    "Pyramid": "meddift.features.pyramid",
    "extract_pyramid": "meddift.features.extraction",
    "mind_level": "meddift.features.mind",
    "whiten_pair": "meddift.features.whitening",
}

__all__ = [
    "ExtractionOptions",
    "FeatureStore",
    "Level",
    "Pyramid",
    "extract_pyramid",
    "mind_level",
    "whiten_pair",
]


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module 'meddift.features' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
