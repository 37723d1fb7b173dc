"""`Start`: an initial transform of two scans before dense matching."""

from __future__ import annotations

from dataclasses import dataclass

from meddift.geometry import AffineTransform, Transform


@dataclass(frozen=True, eq=False)
class Start:
    """An initial transform of two scans.

    Attributes:
        name: How it was found, for reports.
        transform: Fixed to moving.
        affine: Its affine part.
        near: Whether it is correct to within a few mm, so that dense matching needs only the finest level.
    """

    name: str
    transform: Transform
    affine: AffineTransform
    near: bool = False
