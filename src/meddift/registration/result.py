"""`Registration`: the transform of a pair of scans, with everything that says how far to trust it."""

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
    """What registering two scans gives.

    Attributes:
        transform: Fixed world points to moving world points: a displacement field, or an affine or rigid
            motion if no more was asked.
        inverse: Moving world points to fixed world points, found numerically.
        inverse_residual: How far fixed points of the body end from their start after going there and back, mm.
        affine: What a robust fit of an affine gives, fixed to moving; a rigid motion where only that was asked for.
        determinant: (X, Y, Z) float32, volume change; on a grid over the fixed scan.
        uncertainty: (X, Y, Z) float32, how far off the transform may be, mm (about the 70th percentile of the error);
            on the same grid.
        supported: (X, Y, Z) bool, where in the body the moving scan shows a counterpart; on the same grid.
        body: (X, Y, Z) bool, where scans were compared; on the same grid.
        folding: Share, 0 to 1, of the body where the transform folds.
        sd_log_jacobian: Standard deviation of the logarithm of the determinant in the body.
        stages: What was done, in order.
        timing: Seconds each stage has taken.
        provenance: What it was made with, ready for JSON.
        scans: The fixed and the moving scan; None where it was made of features alone.
        drawing: Draws it beside the scans, where those are known; see `plot`.
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
        """Take points of the fixed scan to the moving scan.

        Args:
            points: Points, or (N, 3) or (3,) numbers, world RAS mm.

        Returns:
            One row a point, with a verdict. Points outside either scan have no answer.
        """
        from meddift.registration.carrying import carry_points

        fixed, moving = self._scans()
        return carry_points(self, as_points(points), fixed.grid, moving.grid)

    def warp(self, volume: Any = None, *, fill: float | None = None) -> Volume:
        """An image of the moving scan's world on the voxels of the fixed scan, trilinear.

        Args:
            volume: A path, Volume or image; None = the moving scan.
            fill: What stands where the image shows nothing; None = its least value.
        """
        from meddift.io import as_volume
        from meddift.registration.warping import warp_volume

        fixed, moving = self._scans()
        source = moving if volume is None else as_volume(volume, check=False)
        return warp_volume(source, self.transform, fixed.grid, fill=fill)

    def warp_labels(self, labels: Any, *, fill: float = 0) -> Volume:
        """A label map of the moving scan's world on the voxels of the fixed scan; every label stays what it is.

        Args:
            labels: A path, Volume or image of whole numbers.
            fill: What stands where it shows nothing.

        Raises:
            ImageError: if it is no label map.
        """
        from meddift.io import as_volume
        from meddift.registration.warping import warp_labels

        return warp_labels(as_volume(labels, check=False), self.transform, self._scans()[0].grid, fill=fill)

    def save(self, path: Path | str, *, inverse: bool = False) -> None:
        """Write the transform for ITK, 3D Slicer and ANTs, and beside it a `.transform.json` that says what it is.

        Args:
            path: `.h5`, `.nii.gz`, `.nrrd`, `.mha`, or `.tfm` for an affine; see `write_transform`.
            inverse: Whether to write the inverse instead.

        Raises:
            TransformError: if the format cannot hold it.
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
        """A matplotlib Figure: both scans before and after, and how space is bent.

        Raises:
            OptionsError: if nothing is known of the scans.
        """
        if self.drawing is None:
            raise OptionsError("this registration does not know its scans: make it by pair.register()")
        return self.drawing(self)

    def _scans(self) -> tuple[Volume, Volume]:
        if self.scans is None:
            raise OptionsError("this registration does not know its scans: make it by pair.register()")
        return self.scans

    def determinant_on(self, grid: Grid) -> Volume:
        """The determinant on another grid, such as that of the fixed scan; float32."""
        return read_on(self.determinant, grid)

    def uncertainty_on(self, grid: Grid) -> Volume:
        """The uncertainty on another grid, mm, float32; NaN where there is no counterpart."""
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
