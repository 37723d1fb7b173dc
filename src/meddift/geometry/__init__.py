"""Lattices, frames and transforms. Everything that knows about spacing, flips and half voxels."""

from meddift.geometry.frames import flip_affine_ras_lps, flip_ras_lps
from meddift.geometry.grid import Grid
from meddift.geometry.interpolation import interpolate, resampling_matrix
from meddift.geometry.shift import shifted
from meddift.geometry.transforms import AffineTransform, CompositeTransform, DisplacementField, Transform

__all__ = [
    "AffineTransform",
    "CompositeTransform",
    "DisplacementField",
    "Grid",
    "Transform",
    "flip_affine_ras_lps",
    "flip_ras_lps",
    "interpolate",
    "resampling_matrix",
    "shifted",
]
