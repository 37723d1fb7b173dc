"""Lung density that follows the local change of volume: lungs that take in air become less dense."""

from __future__ import annotations

import numpy as np

from meddift.volume import Volume
from meddift_lab.synthetic.deformation import KnownTransform

#: Spacing of the grid on which the Jacobian determinant is evaluated before it is interpolated, mm.
LATTICE_MM = 8.0
#: Voxels up to `PARENCHYMA_HU` count fully as parenchyma; the share falls linearly to 0 at `SOLID_HU`.
PARENCHYMA_HU = -700.0
SOLID_HU = 0.0
#: Limits of the density factor: beyond them thin vessels would become darker than the lung around them.
LEAST_FACTOR, GREATEST_FACTOR = 0.4, 1.6


def follow_volume(volume: Volume, transform: KnownTransform, *, lungs: Volume) -> Volume:
    """Adapt the HU of the lungs to the change of volume that `transform` causes.

    Mass is preserved: HU + 1000 is nearly proportional to density, so in the parenchyma it is divided by the Jacobian
    determinant (Y. Yin, E. Hoffman and C.-L. Lin, Mass preserving nonrigid registration of CT lung images using
    cubic B-spline, 2009). Blood and airway walls do not fill with air: the change fades out from -700 HU to 0 HU.

    Args:
        volume: (X, Y, Z), the fixed scan, CT in HU.
        transform: Takes fixed points to moving points.
        lungs: Mask of the lungs on the grid of `volume`.

    Returns:
        Volume of float32 on the same grid, not deformed yet; see `deform_volume`.
    """
    hounsfield = volume.data.astype(np.float32)
    if not lungs.data.any():
        return Volume(hounsfield, volume.grid)
    coarse = volume.grid.coarsened(LATTICE_MM)
    factor = 1 / transform.jacobian_determinant(coarse.voxel_centers().reshape(-1, 3)).reshape(coarse.shape)
    factor = np.clip(factor, LEAST_FACTOR, GREATEST_FACTOR).astype(np.float32)
    full = Volume(factor, coarse).resampled_along_axes(volume.grid).data
    share = np.clip((SOLID_HU - hounsfield) / (SOLID_HU - PARENCHYMA_HU), 0, 1) * lungs.data
    return Volume((hounsfield + 1000) * (1 + share * (full - 1)) - 1000, volume.grid)
