"""Lungs get lighter where they take in air: density that follows the local change of volume."""

from __future__ import annotations

import numpy as np

from meddift.volume import Volume
from meddift_lab.synthetic.deformation import KnownTransform

#: The determinant is evaluated on a grid of this spacing and interpolated: it is as smooth as breathing is.
LATTICE_MM = 8.0
#: Up to here a voxel is taken for parenchyma, HU; from here on to `SOLID_HU` ever less of it is.
PARENCHYMA_HU = -700.0
SOLID_HU = 0.0
#: Beyond these factors shades would change places: thin vessels would end darker than the lung around them.
LEAST_FACTOR, GREATEST_FACTOR = 0.4, 1.6


def follow_volume(volume: Volume, transform: KnownTransform, *, lungs: Volume) -> Volume:
    """HU of the fixed scan as they will be once `transform` has stretched or squeezed the lungs.

    Mass stays: HU + 1000 is proportional to density, nearly, so in the parenchyma it is divided by the determinant of
    the Jacobian (Y. Yin, E. Hoffman and C.-L. Lin, Mass preserving nonrigid registration of CT lung images using
    cubic B-spline, 2009). Blood and airway walls do not fill with air: between -700 HU and 0 HU the change fades out.

    Args:
        volume: The fixed scan, CT in HU.
        transform: Takes fixed points to moving points.
        lungs: Mask of the lungs on the grid of `volume`.

    Returns:
        Volume of float32 on the same grid, for `deform_volume`.
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
