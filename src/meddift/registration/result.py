"""`Registration`: the transform of a pair of scans, with everything that says how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from meddift.geometry import AffineTransform, DisplacementField, Grid, Transform
from meddift.registration.inverse import InverseResidual
from meddift.registration.jacobian import read_on
from meddift.volume import Volume


@dataclass(frozen=True, eq=False)
class Registration:
    """What registering two scans gives.

    Attributes:
        transform: Fixed world points to moving world points: a displacement field, or an affine if no more was asked.
        inverse: Moving world points to fixed world points, found numerically.
        inverse_residual: How far fixed points of the body end from their start after going there and back, mm.
        affine: What a robust fit of an affine gives, fixed to moving.
        determinant: (X, Y, Z) float32, volume change; on a lattice over the fixed scan.
        uncertainty: (X, Y, Z) float32, how far off the transform may be, mm (about the 70th percentile of the error);
            on the same lattice.
        supported: (X, Y, Z) bool, where in the body the moving scan shows a counterpart; on the same lattice.
        body: (X, Y, Z) bool, where scans were compared; on the same lattice.
        folding: Share, 0 to 1, of the body where the transform folds.
        sd_log_jacobian: Standard deviation of the logarithm of the determinant in the body.
        stages: What was done, in order.
        timing: Seconds each stage has taken.
        provenance: What it was made with, ready for JSON.
    """

    transform: Transform
    inverse: Transform
    inverse_residual: InverseResidual
    affine: AffineTransform
    determinant: Volume
    uncertainty: Volume
    supported: Volume
    body: Volume
    folding: float
    sd_log_jacobian: float
    stages: tuple[str, ...]
    timing: Mapping[str, float]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The most important numbers."""
        return (
            f"Registration({', '.join(self.stages)}; {100 * self.supported_share:.0f} % of the body supported, "
            f"folding {100 * self.folding:.3f} %, SDlogJ {self.sd_log_jacobian:.3f})"
        )

    @property
    def supported_share(self) -> float:
        """Share, 0 to 1, of the body of the fixed scan that has a counterpart in the moving scan."""
        inside = self.body.data
        return float(self.supported.data[inside].mean()) if inside.any() else 0.0

    def determinant_on(self, grid: Grid) -> Volume:
        """The determinant on another lattice, such as that of the fixed scan; float32."""
        return read_on(self.determinant, grid)

    def uncertainty_on(self, grid: Grid) -> Volume:
        """The uncertainty on another lattice, mm, float32; NaN where there is no counterpart."""
        supported = read_on(Volume(self.supported.data.astype(np.float32), self.supported.grid), grid)
        values = read_on(self.uncertainty, grid).data
        return Volume(np.where(supported.data >= 0.5, values, np.float32(np.nan)), grid)

    def summary(self) -> dict[str, Any]:
        """Everything but the maps, ready for JSON."""
        uncertain = self.uncertainty.data[self.supported.data]
        median = float(np.median(uncertain)) if uncertain.size else float("nan")
        shape = self.transform.grid if isinstance(self.transform, DisplacementField) else None
        return {
            "direction": "points: fixed to moving; images: moving onto fixed",
            "stages": list(self.stages),
            "affine": self.affine.matrix.tolist(),
            "field": None
            if shape is None
            else {"shape": list(shape.shape), "affine": shape.affine.tolist(), "spacing_mm": shape.spacing.tolist()},
            "inverse_residual_mm": self.inverse_residual.as_dict(),
            "folding": self.folding,
            "sd_log_jacobian": self.sd_log_jacobian,
            "supported_share_of_body": self.supported_share,
            "uncertainty_mm_median": median if np.isfinite(median) else None,
            "timing": {name: float(value) for name, value in self.timing.items()},
        }
