"""`Registration`: the transform between two scans, with measures of its reliability."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from meddift.errors import OptionsError
from meddift.geometry import AffineTransform, DisplacementField, Grid, Transform
from meddift.points import Points, as_points
from meddift.registration.inverse import InverseResidual
from meddift.registration.jacobian import read_on
from meddift.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from meddift.matching import Matches


@dataclass(frozen=True, eq=False)
class Registration:
    """The result of registering two scans.

    Attributes:
        transform: Maps fixed to moving world points: a displacement field, or an affine (rigid) transform if only that
            stage was run.
        inverse: Maps moving to fixed world points.
        inverse_residual: Inverse-consistency error of fixed points in the body, mm.
        affine: The affine (rigid) part, fixed to moving, from a robust fit.
        determinant: (X, Y, Z) float32, Jacobian determinant, on a grid over the fixed scan.
        uncertainty: (X, Y, Z) float32, expected error of the transform, mm (about the 70th percentile); NaN without
            dense matching. On the same grid, as are the two following.
        supported: (X, Y, Z) bool, where in the body the moving scan has a counterpart.
        body: (X, Y, Z) bool, where scans were compared.
        folding: Share, 0 to 1, of the body in which the transform folds.
        sd_log_jacobian: Standard deviation of the logarithm of the determinant in the body.
        stages: The stages that were run, in order.
        timing: Name of each stage -> seconds.
        provenance: Scans, model, options and versions that the result depends on, ready for JSON.
        scans: The fixed and the moving scan; None if unknown.
        drawing: Draws the registration together with the scans; None if they are unknown. See `plot`.
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
    scans: tuple[Volume, Volume] | None = None
    drawing: Callable[[Registration], Figure] | None = None

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

    def apply(self, points: Points | ArrayLike) -> Matches:
        """Map points of the fixed scan to the moving scan.

        Args:
            points: `Points`, or an array of (N, 3) or (3,), world RAS mm.

        Returns:
            One match for each point, in the same order. Points outside either scan have the verdict "outside".

        Raises:
            OptionsError: if the scans are unknown.
        """
        from meddift.registration.carrying import carry_points

        fixed, moving = self._scans()
        return carry_points(self, as_points(points), fixed.grid, moving.grid)

    def warp(self, volume: Any = None, *, fill: float | None = None) -> Volume:
        """Resample an image in the world of the moving scan to the grid of the fixed scan, trilinearly.

        Args:
            volume: A path, `Volume` or image; None = the moving scan.
            fill: Value outside the image; None = its smallest value.

        Returns:
            Volume on the grid of the fixed scan, of the type of the image.

        Raises:
            GeometryError: if the type of the image cannot hold `fill`.
            OptionsError: if the scans are unknown.
        """
        from meddift.io import as_volume
        from meddift.registration.warping import warp_volume

        fixed, moving = self._scans()
        source = moving if volume is None else as_volume(volume, check=False)
        return warp_volume(source, self.transform, fixed.grid, fill=fill)

    def warp_labels(self, labels: Any, *, fill: float = 0) -> Volume:
        """Resample a label map in the world of the moving scan to the grid of the fixed scan (nearest neighbour).

        Args:
            labels: A path, `Volume` or image of whole numbers.
            fill: Value outside the label map.

        Returns:
            Volume on the grid of the fixed scan, of the type of the label map.

        Raises:
            ImageError: if it is not a label map.
            GeometryError: if its type cannot hold `fill`.
            OptionsError: if the scans are unknown.
        """
        from meddift.io import as_volume
        from meddift.registration.warping import warp_labels

        return warp_labels(as_volume(labels, check=False), self.transform, self._scans()[0].grid, fill=fill)

    def save(self, path: Path | str, *, inverse: bool = False) -> None:
        """Write the transform for ITK, 3D Slicer and ANTs, with a `.transform.json` that describes it.

        Args:
            path: The file: `.h5`, `.nii.gz`, `.nrrd`, `.mha`, or `.tfm` for an affine; see `write_transform`.
            inverse: Whether to write the inverse instead.

        Raises:
            TransformError: if the format cannot hold the transform.
            OutputError: if a file cannot be written.
        """
        from meddift.io import write_transform
        from meddift.io.transform_sidecar import file_entry, sidecar_path, transform_sidecar, write_sidecar

        path = Path(path)
        write_transform(self.inverse if inverse else self.transform, path)
        if self.scans is not None:
            more = {
                "registration": self.summary(),
                "provenance": dict(self.provenance),
                "file": file_entry(path, name=path.name),
            }
            write_sidecar(transform_sidecar(*self.scans, inverse=inverse, more=more), sidecar_path(path))

    def plot(self) -> Figure:
        """Draw both scans before and after registration and the deformation, as a matplotlib Figure.

        Raises:
            OptionsError: if the scans are unknown.
        """
        if self.drawing is None:
            raise OptionsError("this registration does not know its scans: make it by pair.register()")
        return self.drawing(self)

    def _scans(self) -> tuple[Volume, Volume]:
        if self.scans is None:
            raise OptionsError("this registration does not know its scans: make it by pair.register()")
        return self.scans

    def determinant_on(self, grid: Grid) -> Volume:
        """The determinant resampled to another grid, such as that of the fixed scan; float32."""
        return read_on(self.determinant, grid)

    def uncertainty_on(self, grid: Grid) -> Volume:
        """The uncertainty resampled to another grid, mm, float32; NaN where there is no counterpart."""
        supported = read_on(Volume(self.supported.data.astype(np.float32), self.supported.grid), grid)
        values = read_on(self.uncertainty, grid).data
        return Volume(np.where(supported.data >= 0.5, values, np.float32(np.nan)), grid)

    def summary(self) -> dict[str, Any]:
        """All results but the maps, ready for JSON."""
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
