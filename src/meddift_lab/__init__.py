"""The laboratory: drawn scans, known deformations, data sets, baseline methods, metrics, ablation and reports.

It may import meddift. meddift imports it only in the commands `demo`, `evaluate` and `datasets`, when they are called.

Names are loaded on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift_lab.metrics.regularity import Regularity, measure_regularity
    from meddift_lab.metrics.statistics import compare_paired, mean_over_cases, tre30
    from meddift_lab.metrics.tre import snapped_to_voxels, target_errors

#: Public name -> module that defines it.
_HOME = {
    "Regularity": "meddift_lab.metrics.regularity",
    "compare_paired": "meddift_lab.metrics.statistics",
    "mean_over_cases": "meddift_lab.metrics.statistics",
    "measure_regularity": "meddift_lab.metrics.regularity",
    "snapped_to_voxels": "meddift_lab.metrics.tre",
    "target_errors": "meddift_lab.metrics.tre",
    "tre30": "meddift_lab.metrics.statistics",
}

__all__ = [
    "Regularity",
    "compare_paired",
    "mean_over_cases",
    "measure_regularity",
    "snapped_to_voxels",
    "target_errors",
    "tre30",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
