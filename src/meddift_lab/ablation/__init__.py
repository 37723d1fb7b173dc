"""Ablations: variants of the method that differ from a base in one choice.

Names are loaded on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift_lab.ablation.run import run_ablation
    from meddift_lab.ablation.tables import collect_ablation
    from meddift_lab.ablation.variants import BASES, SWEEPS, Variant, make_variants

#: Public name -> module that defines it.
_HOME = {
    "BASES": "meddift_lab.ablation.variants",
    "SWEEPS": "meddift_lab.ablation.variants",
    "Variant": "meddift_lab.ablation.variants",
    "collect_ablation": "meddift_lab.ablation.tables",
    "run_ablation": "meddift_lab.ablation.run",
    "make_variants": "meddift_lab.ablation.variants",
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
