"""One scan in eight orientations and two oblique ones: what other programs are asked to write."""

from __future__ import annotations

import itertools

import numpy as np

SHAPE = (5, 6, 7)
SPACING = (0.75, 1.5, 3.0)


def affines() -> dict[str, np.ndarray]:
    """By name, (4, 4) from voxel index to RAS mm."""
    found = {}
    for signs in itertools.product((1, -1), repeat=3):
        name = "".join(pair[sign < 0] for pair, sign in zip(("RL", "AP", "SI"), signs, strict=True))
        found[name] = _affine(np.diag(signs))
    turn = _turn(0, 17) @ _turn(1, -23) @ _turn(2, 71)
    found["oblique"] = _affine(turn)
    sagittal = np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0]])  # and left-handed
    found["oblique_sagittal"] = _affine(turn @ sagittal)
    return found


def values() -> np.ndarray:
    """(X, Y, Z) int16, all different."""
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) - 100).astype(np.int16)


def corners() -> np.ndarray:
    """Indices of the corner voxels and of a place between voxels."""
    ends = list(itertools.product(*[(0, n - 1) for n in SHAPE]))
    return np.array([*ends, (1.25, 2.5, 0.75)], dtype=float)


def _affine(direction: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = direction * SPACING
    affine[:3, 3] = (-71.5, 33.25, -402.0)
    return affine


def _turn(axis: int, degrees: float) -> np.ndarray:
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[a, a] = turn[b, b] = np.cos(np.radians(degrees))
    turn[b, a] = np.sin(np.radians(degrees))
    turn[a, b] = -turn[b, a]
    return turn
