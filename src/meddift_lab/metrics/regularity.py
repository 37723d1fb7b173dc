"""How smooth a dense transform is: Jacobian determinants, SDlogJ in both usages, and folding.

The judge has an arithmetic of its own, that of the challenge, and takes none from the registration it judges.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError
from meddift.geometry import DisplacementField
from meddift.volume import Volume

#: Voxels left out on each side of the lattice, as the challenge does.
CROP = 2
#: Determinants are clipped to these before the logarithm is taken, as the challenge does.
CLIP = (1e-9, 1e9)
#: What the challenge adds to determinants before it takes their logarithm.
CHALLENGE_OFFSET = 3.0
#: Planes of the lattice that are worked on at a time.
_SLAB = 16


@dataclass(frozen=True)
class Regularity:
    """Smoothness of a displacement field.

    Attributes:
        sdlogj: Standard deviation of log(det), det clipped to 1e-9..1e9: what most papers mean by SDlogJ.
        sdlogj_plus3: Of log(det + 3), clipped likewise: what the evaluation of Learn2Reg computes. The two must
            not be compared with each other.
        folding: Share, 0 to 1, of voxels with det <= 0.
        voxels: Number of voxels that count.
        mask: Which voxels count, in words.
    """

    sdlogj: float
    sdlogj_plus3: float
    folding: float
    voxels: int
    mask: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def jacobian_determinants(field: DisplacementField) -> NDArray[np.float64]:
    """Determinant of the derivative of x + d(x), by central differences between voxels.

    The determinant is the same in voxels and in mm, as long as both sides are counted on one lattice.

    Args:
        field: On a lattice of at least five voxels along each axis.

    Returns:
        (X - 4, Y - 4, Z - 4) float64: two voxels are left out on each side.

    Raises:
        GeometryError: if the lattice is too small.
    """
    shape = field.grid.shape
    if min(shape) <= 2 * CROP:
        raise GeometryError(f"derivatives need more than {2 * CROP} voxels along each axis, got {shape}")
    # Index units: the linear part of the map from world to index, applied to displacements.
    grid, zero = field.grid, field.grid.world_to_index(np.zeros(3))
    inner = slice(CROP, -CROP)
    rows = [n - 2 * CROP for n in shape]
    result = np.empty(rows)
    for start in range(0, rows[0], _SLAB):
        stop = min(start + _SLAB, rows[0])
        part = np.moveaxis(field.displacement[:, start + CROP - 1 : stop + CROP + 1].astype(np.float64), 0, -1)
        index = grid.world_to_index(part) - zero
        jacobian = np.empty((stop - start, rows[1], rows[2], 3, 3))
        jacobian[..., 0] = (index[2:] - index[:-2])[:, inner, inner] / 2
        middle = index[1:-1]
        jacobian[..., 1] = (middle[:, CROP + 1 : shape[1] - CROP + 1] - middle[:, CROP - 1 : -CROP - 1])[
            :, :, inner
        ] / 2
        jacobian[..., 2] = (middle[:, :, CROP + 1 : shape[2] - CROP + 1] - middle[:, :, CROP - 1 : -CROP - 1])[
            :, inner
        ] / 2
        jacobian += np.eye(3)
        result[start:stop] = np.linalg.det(jacobian)
    return result


def measure_regularity(field: DisplacementField, *, mask: Volume | None = None, mask_name: str = "") -> Regularity:
    """Smoothness of a field, where it counts.

    Args:
        field: On the lattice of the fixed scan.
        mask: Which voxels of that lattice count; all of them if None.
        mask_name: The mask in words, for the report.

    Raises:
        GeometryError: if the mask lies on another lattice, leaves no voxel, or the lattice is too small.
    """
    determinants = jacobian_determinants(field)
    if mask is not None:
        if not mask.grid.same_as(field.grid):
            raise GeometryError(f"the mask lies on {mask.grid!r}, the field on {field.grid!r}")
        inner = slice(CROP, -CROP)
        determinants = determinants[mask.data[inner, inner, inner].astype(bool)]
        if determinants.size == 0:
            raise GeometryError("the mask leaves no voxel of the field")
    values = determinants.reshape(-1)
    return Regularity(
        sdlogj=float(np.log(np.clip(values, *CLIP)).std()),
        sdlogj_plus3=float(np.log(np.clip(values + CHALLENGE_OFFSET, *CLIP)).std()),
        folding=float((values <= 0).mean()),
        voxels=int(values.size),
        mask=mask_name if mask is not None else "the whole scan",
    )
