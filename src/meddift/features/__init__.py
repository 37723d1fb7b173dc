"""Feature maps of scans: extraction, whitening, storage on disk.

Names are loaded on first use (PEP 562); nothing here takes torch until features are computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift.features.extraction import ExtractionOptions, extract_pyramid, extract_pyramids
    from meddift.features.mind import mind_level
    from meddift.features.pyramid import Level, Pyramid
    from meddift.features.store import FeatureStore
    from meddift.features.whitening import Whitening, whiten_pair, whitening_maps

#: Public name -> module that defines it.
_HOME = {
    "ExtractionOptions": "meddift.features.extraction",
    "FeatureStore": "meddift.features.store",
    "Level": "meddift.features.pyramid",
    "Pyramid": "meddift.features.pyramid",
    "Whitening": "meddift.features.whitening",
    "extract_pyramid": "meddift.features.extraction",
    "extract_pyramids": "meddift.features.extraction",
    "mind_level": "meddift.features.mind",
    "whiten_pair": "meddift.features.whitening",
    "whitening_maps": "meddift.features.whitening",
}

__all__ = [
    "ExtractionOptions",
    "FeatureStore",
    "Level",
    "Pyramid",
    "Whitening",
    "extract_pyramid",
    "extract_pyramids",
    "mind_level",
    "whiten_pair",
    "whitening_maps",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
