"""Matching of points: similarity, exact search, prior, sub-voxel alignment, verdicts.

Names are loaded on first use (PEP 562): `Matches` takes no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift.matching.index import SearchIndex, search_grid
    from meddift.matching.local import window_similarity
    from meddift.matching.maps import search_maps, similarity_maps
    from meddift.matching.matches import Match, Matches
    from meddift.matching.robust import RobustAffine, fit_robust_affine
    from meddift.matching.search import Found, GlobalSearch
    from meddift.matching.subvoxel import peak_offsets
    from meddift.matching.verdict import Verdict

#: Public name -> module that defines it.
_HOME = {
    "Found": "meddift.matching.search",
    "GlobalSearch": "meddift.matching.search",
    "Match": "meddift.matching.matches",
    "Matches": "meddift.matching.matches",
    "RobustAffine": "meddift.matching.robust",
    "SearchIndex": "meddift.matching.index",
    "Verdict": "meddift.matching.verdict",
    "fit_robust_affine": "meddift.matching.robust",
    "search_grid": "meddift.matching.index",
    "peak_offsets": "meddift.matching.subvoxel",
    "search_maps": "meddift.matching.maps",
    "similarity_maps": "meddift.matching.maps",
    "window_similarity": "meddift.matching.local",
}

__all__ = [
    "Found",
    "GlobalSearch",
    "Match",
    "Matches",
    "RobustAffine",
    "SearchIndex",
    "Verdict",
    "fit_robust_affine",
    "peak_offsets",
    "search_grid",
    "search_maps",
    "similarity_maps",
    "window_similarity",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
