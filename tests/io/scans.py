"""Small scans with every kind of geometry, shared by the tests of image files."""

from __future__ import annotations

import itertools

import numpy as np

SHAPE = (4, 5, 6)


def axis_aligned_affines() -> list[np.ndarray]:
    """All 48 assignments of index axes to world directions; 1.5 x 0.7 x 3 mm, an origin of no roundness."""
    affines = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            affine = np.zeros((4, 4))
            for axis, (world, sign, spacing) in enumerate(zip(order, signs, (1.5, 0.7, 3.0), strict=True)):
                affine[world, axis] = sign * spacing
            affine[:3, 3] = (-123.25, 47.5, -611.75)
            affine[3, 3] = 1
            affines.append(affine)
    return affines


def rotation(angles_degrees) -> np.ndarray:
    """Rotation about x, then y, then z."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(angles_degrees)):
        one = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turn = one @ turn
    return turn


def oblique_affines() -> list[np.ndarray]:
    """The 48, each turned by an angle of its own."""
    turned = []
    for i, affine in enumerate(axis_aligned_affines()):
        affine = affine.copy()
        affine[:3, :3] = rotation((3 + i / 2, -7 + i / 3, 11)) @ affine[:3, :3]
        turned.append(affine)
    return turned


def voxels(dtype=np.int16, shape=SHAPE) -> np.ndarray:
    """Values that are all different, so that no axis can be mistaken for another."""
    return (np.arange(np.prod(shape)).reshape(shape) - (0 if np.dtype(dtype).kind == "u" else 50)).astype(dtype)


def sitk_positions(image, indices) -> np.ndarray:
    """World RAS mm of voxels according to SimpleITK, the independent witness."""
    return np.array([image.TransformContinuousIndexToPhysicalPoint([float(n) for n in i]) for i in indices]) * [
        -1,
        -1,
        1,
    ]


def some_indices(shape=SHAPE) -> np.ndarray:
    """The corners and a point between voxels."""
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in shape])), dtype=float)
    return np.vstack([corners, [[1.25, 2.5, 0.75]]])
