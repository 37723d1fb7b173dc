"""Floor 5: how well methods find points, measured as the field's challenges do, on the same pairs.

Names are loaded on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.lazy import lazy_names

if TYPE_CHECKING:
    from meddift.evaluation.regularity import Regularity, measure_regularity
    from meddift.evaluation.statistics import compare_paired, mean_over_cases, tre30
    from meddift.evaluation.tre import PointErrors, snapped_to_voxels, target_errors

#: Public name -> module that defines it.
_HOME = {
    "PointErrors": "meddift.evaluation.tre",
    "Regularity": "meddift.evaluation.regularity",
    "compare_paired": "meddift.evaluation.statistics",
    "mean_over_cases": "meddift.evaluation.statistics",
    "measure_regularity": "meddift.evaluation.regularity",
    "snapped_to_voxels": "meddift.evaluation.tre",
    "target_errors": "meddift.evaluation.tre",
    "tre30": "meddift.evaluation.statistics",
}

__all__ = [
    "PointErrors",
    "Regularity",
    "compare_paired",
    "mean_over_cases",
    "measure_regularity",
    "snapped_to_voxels",
    "target_errors",
    "tre30",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
