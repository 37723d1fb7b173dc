"""Registration of two scans: dense matching, refinement, inverse, warping.

Names are loaded on first use (PEP 562): importing this package takes no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift.registration.inverse import InverseResidual
    from meddift.registration.jacobian import jacobian_determinant, sampled
    from meddift.registration.register import register_scans
    from meddift.registration.result import Registration
    from meddift.registration.warping import warp, warp_labels, warp_volume

#: Public name -> module that defines it.
_HOME = {
    "InverseResidual": "meddift.registration.inverse",
    "Registration": "meddift.registration.result",
    "jacobian_determinant": "meddift.registration.jacobian",
    "register_scans": "meddift.registration.register",
    "sampled": "meddift.registration.jacobian",
    "warp": "meddift.registration.warping",
    "warp_labels": "meddift.registration.warping",
    "warp_volume": "meddift.registration.warping",
}

__all__ = [
    "InverseResidual",
    "Registration",
    "jacobian_determinant",
    "register_scans",
    "sampled",
    "warp",
    "warp_labels",
    "warp_volume",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
