"""Ablations: one choice of the method at a time, with everything else as it was.

Names are loaded on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.lazy import lazy_names

if TYPE_CHECKING:
    from meddift.evaluation.ablation.run import run_ablation
    from meddift.evaluation.ablation.tables import collect_ablation
    from meddift.evaluation.ablation.variants import BASES, SWEEPS, Variant, make_variants

#: Public name -> module that defines it.
_HOME = {
    "BASES": "meddift.evaluation.ablation.variants",
    "SWEEPS": "meddift.evaluation.ablation.variants",
    "Variant": "meddift.evaluation.ablation.variants",
    "collect_ablation": "meddift.evaluation.ablation.tables",
    "run_ablation": "meddift.evaluation.ablation.run",
    "make_variants": "meddift.evaluation.ablation.variants",
}

__all__ = [
    "BASES",
    "SWEEPS",
    "Variant",
    "collect_ablation",
    "make_variants",
    "run_ablation",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
