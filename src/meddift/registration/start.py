"""Where points are expected before two scans are matched densely."""

from __future__ import annotations

from dataclasses import dataclass

from meddift.geometry import AffineTransform, Transform


@dataclass(frozen=True, eq=False)
class Start:
    """Where points are expected, before anything was matched densely.

    Attributes:
        name: Which levels found it; for reports.
        transform: Fixed to moving.
        affine: Its affine part.
        near: Whether it is known to within some mm: then the level with the finest detail alone looks around it.
    """

    name: str
    transform: Transform
    affine: AffineTransform
    near: bool = False
