"""`Matches`: points found in the moving scan, with how sure we are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from meddift.points import Points

Verdict = Literal["ok", "uncertain", "outside"]


@dataclass(frozen=True, eq=False)
class Matches:
    """What was found for each fixed point. Row i belongs to row i everywhere.

    Attributes:
        fixed: N points in the fixed scan, world RAS mm.
        moving: N points in the moving scan, world RAS mm, with the same labels; missing (NaN) where the verdict is
            "outside": there is no counterpart, and none is made up.
        similarity: (N,) float64, mean cosine over the levels at the voxel found, -1..1, and in the default preset over
            its 26 neighbours too; NaN where not looked for.
        margin: (N,) float64, by how much it beats the best rival elsewhere in the searched region; NaN likewise,
            inf where the region holds no rival.
        inverse_error_mm: (N,) float64, distance between the fixed point and what matching back finds; NaN likewise.
        verdict: N of "ok", "uncertain", "outside".
        reason: N sentences; empty where the verdict is "ok".
    """

    fixed: Points
    moving: Points
    similarity: NDArray[np.float64]
    margin: NDArray[np.float64]
    inverse_error_mm: NDArray[np.float64]
    verdict: tuple[Verdict, ...]
    reason: tuple[str, ...]

    def __len__(self) -> int:
        """Number of points."""
        return len(self.fixed)

    def __repr__(self) -> str:
        """Counts of verdicts."""
        counts = ", ".join(f"{self.verdict.count(v)} {v}" for v in ("ok", "uncertain", "outside"))
        return f"Matches({len(self)} points: {counts})"

    @property
    def ok(self) -> NDArray[np.bool_]:
        """(N,) bool, True where the verdict is "ok"."""
        return np.array([v == "ok" for v in self.verdict], dtype=bool)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a point, ready for JSON: world RAS mm, None where there is no number."""

        def number(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        return [
            {
                "label": label,
                "fixed": None if np.isnan(fixed).any() else [float(v) for v in fixed],
                "moving": None if np.isnan(moving).any() else [float(v) for v in moving],
                "similarity": number(similarity),
                "margin": number(margin),
                "inverse_error_mm": number(inverse),
                "verdict": verdict,
                "reason": reason,
            }
            for label, fixed, moving, similarity, margin, inverse, verdict, reason in zip(
                self.fixed.labels,
                self.fixed.positions,
                self.moving.positions,
                self.similarity,
                self.margin,
                self.inverse_error_mm,
                self.verdict,
                self.reason,
                strict=True,
            )
        ]
