"""The grids on which files are exchanged: eight orientations and an oblique one (numpy only)."""

from __future__ import annotations

import numpy as np

_AXES = {
    "R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1),
}  # fmt: skip
_TURN = np.deg2rad([20.0, -35.0, 50.0])

SHAPE = (22, 20, 18)
SPACING = np.array([3.0, 3.5, 4.0])
CENTER = np.array([12.0, -18.0, 40.0])  # RAS mm
NAMES = ("RAS", "LAS", "LPS", "RPI", "RSA", "PIR", "AIL", "SLP", "oblique")


def direction(name: str) -> np.ndarray:
    """(3, 3) directions of the index axes as columns, RAS."""
    if name != "oblique":
        return np.array([_AXES[letter] for letter in name], dtype=float).T
    (cx, cy, cz), (sx, sy, sz) = np.cos(_TURN), np.sin(_TURN)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x @ np.diag([-1.0, 1.0, 1.0])


def affine(name: str) -> np.ndarray:
    """(4, 4) voxel index to world RAS mm; the middle of the grid lies at CENTER."""
    found = np.eye(4)
    found[:3, :3] = direction(name) * SPACING
    found[:3, 3] = CENTER - found[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return found


def lps(name: str) -> tuple[list[float], list[float], list[float]]:
    """Origin, spacing and direction (rows) as ITK wants them."""
    flipped = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine(name)
    return flipped[:3, 3].tolist(), SPACING.tolist(), (flipped[:3, :3] / SPACING).ravel().tolist()


def texture(name: str, shift: np.ndarray) -> np.ndarray:
    """(X, Y, Z) float32 waves in world coordinates, moved by `shift` RAS mm: what programs can register."""
    matrix = affine(name)
    index = np.indices(SHAPE).transpose(1, 2, 3, 0)
    x, y, z = np.moveaxis(index @ matrix[:3, :3].T + matrix[:3, 3] - shift, -1, 0)
    ball = np.exp(-(((x - 12) / 22) ** 2 + ((y + 18) / 20) ** 2 + ((z - 40) / 24) ** 2))
    return (1000 * ball + 200 * ball * np.sin(x / 6) * np.cos(y / 7) * np.sin(z / 8)).astype(np.float32)


def inner_points() -> np.ndarray:
    """(N, 3) points well inside all grids, RAS mm."""
    return CENTER + np.random.default_rng(3).uniform(-12, 12, (15, 3))


SHIFT = np.array([2.0, -3.0, 1.5])
