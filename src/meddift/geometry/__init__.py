"""Grids, frames, transforms and interpolation: all code that depends on spacing, flips and half voxels."""

from meddift.geometry.axes import AxisReading, read_axes, resample_axes, spline_matrix
from meddift.geometry.frames import flip_affine_ras_lps, flip_ras_lps
from meddift.geometry.grid import Grid
from meddift.geometry.sampling import as_type, check_fill, nearest, sample, sample_with_gradient
from meddift.geometry.shift import shifted
from meddift.geometry.transforms import AffineTransform, CompositeTransform, DisplacementField, Transform
from meddift.geometry.windows import ball_offsets, box_within, steps_of, window_distances, windows_around

__all__ = [
    "AffineTransform",
    "AxisReading",
    "CompositeTransform",
    "DisplacementField",
    "Grid",
    "Transform",
    "as_type",
    "ball_offsets",
    "box_within",
    "check_fill",
    "flip_affine_ras_lps",
    "flip_ras_lps",
    "nearest",
    "read_axes",
    "resample_axes",
    "sample",
    "sample_with_gradient",
    "shifted",
    "spline_matrix",
    "steps_of",
    "window_distances",
    "windows_around",
]
