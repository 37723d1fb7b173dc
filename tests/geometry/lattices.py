"""Random grids for hypothesis: all 48 orientations, oblique, anisotropic, anywhere."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from meddift.geometry import Grid

#: Every way to permute and flip three axes, as (3, 3) matrices.
TURNS = [
    np.eye(3)[:, list(order)] * np.array(signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


def rotation(angles) -> np.ndarray:
    """Rotation about x, then y, then z; radians."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [i for i in range(3) if i != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


@st.composite
def grids(draw, *, oblique: bool = True, smallest: int = 1, largest: int = 40):
    """Grids of all orientations; obliqueness up to 20 degrees about each axis."""
    shape = tuple(draw(st.tuples(*[st.integers(smallest, largest)] * 3)))
    spacing = np.array(draw(st.tuples(*[st.floats(0.2, 8.0)] * 3)))
    turn = draw(st.sampled_from(TURNS))
    angles = draw(st.tuples(*[st.floats(-0.35, 0.35)] * 3)) if oblique else (0.0, 0.0, 0.0)
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) @ turn * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-800.0, 800.0)] * 3))
    return Grid(shape, affine)
