"""Regularity of a displacement field: SDlogJ in both common definitions, and folding.

The voxels that count are those of the Learn2Reg evaluation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from meddift.errors import GeometryError
from meddift.geometry import DisplacementField
from meddift.registration.jacobian import folding, jacobian_determinant, sd_log_jacobian
from meddift.volume import Volume

#: Number of voxels excluded on each side of the grid, as in the Learn2Reg evaluation.
CROP = 2
#: Constant that the Learn2Reg evaluation adds to determinants before it takes their logarithm.
CHALLENGE_OFFSET = 3.0


@dataclass(frozen=True)
class Regularity:
    """Regularity of a displacement field.

    Attributes:
        sdlogj: Standard deviation of log(det), det clipped to 1e-9..1e9: what most papers mean by SDlogJ.
        sdlogj_plus3: Standard deviation of log(det + 3), clipped in the same way, as in the evaluation of Learn2Reg.
            The two values must not be compared with each other.
        folding: Fraction, 0 to 1, of voxels with det <= 0.
        voxels: Number of voxels that are evaluated.
        mask: Description of the mask of these voxels.
    """

    sdlogj: float
    sdlogj_plus3: float
    folding: float
    voxels: int
    mask: str

    def as_dict(self) -> dict[str, Any]:
        """The attributes as a dictionary, ready for JSON."""
        return asdict(self)


def measure_regularity(field: DisplacementField, *, mask: Volume | None = None, mask_name: str = "") -> Regularity:
    """Measure the regularity of a field inside a mask.

    Args:
        field: Displacement field on the grid of the fixed scan.
        mask: Mask of the voxels to evaluate, on the same grid; None = all voxels.
        mask_name: Description of the mask for the report.

    Raises:
        GeometryError: if the mask lies on another grid, leaves no voxel, or the grid is too small.
    """
    if min(field.grid.shape) <= 2 * CROP:
        raise GeometryError(f"derivatives need more than {2 * CROP} voxels along each axis, got {field.grid.shape}")
    inner = slice(CROP, -CROP)
    determinants = jacobian_determinant(field).data[inner, inner, inner]
    if mask is not None:
        if not mask.grid.same_as(field.grid):
            raise GeometryError(f"the mask lies on {mask.grid!r}, the field on {field.grid!r}")
        determinants = determinants[mask.data[inner, inner, inner].astype(bool)]
        if determinants.size == 0:
            raise GeometryError("the mask leaves no voxel of the field")
    values = determinants.reshape(-1)
    return Regularity(
        sdlogj=sd_log_jacobian(values),
        sdlogj_plus3=sd_log_jacobian(values, offset=CHALLENGE_OFFSET),
        folding=folding(values),
        voxels=int(values.size),
        mask=mask_name if mask is not None else "the whole scan",
    )
