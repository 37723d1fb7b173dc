"""Branching trees that fill a region: vessels and airways of a lung."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tree:
    """A branching tree.

    Attributes:
        paths: For each branch a (K, 3) float64 path, world mm, from its beginning to its end.
        radii: (B,) float64, radius of each branch, mm.
        generations: (B,) int, 0 for the root.
        forks: (F, 3) float64, bifurcations, world mm.
        fork_radii: (F,) float64, radius of the branch that divides at each bifurcation, mm.
    """

    paths: tuple[Floats, ...]
    radii: Floats
    generations: NDArray[np.int64]
    forks: Floats
    fork_radii: Floats


def grow_tree(
    root: Floats,
    direction: Floats,
    terminals: Floats,
    *,
    generator: np.random.Generator,
    terminal_radius_mm: float,
    exponent: float = 3.0,
) -> Tree:
    """Grow a tree from a root that reaches every terminal, by halving the set of terminals at each fork.

    A branch heads for the middle of its terminals and covers part of the way; there it divides its terminals
    in two along their widest direction. Radii follow C. Murray's law (The physiological principle of minimum
    work, 1926): `r^exponent` of a branch is the sum over its daughters, so the radius of a branch depends on
    how many terminals it serves.

    Args:
        root: (3,) world mm.
        direction: (3,) initial direction of the root branch.
        terminals: (N, 3) end points of the last branches, world mm, N >= 1.
        generator: Source of randomness.
        terminal_radius_mm: Radius of the last branches.
        exponent: Exponent of the law; 3 is Murray's, larger values make the stem thinner.

    Returns:
        Tree with N leaves and N - 1 forks.
    """
    paths: list[Floats] = []
    radii: list[float] = []
    generations: list[int] = []
    forks: list[Floats] = []
    fork_radii: list[float] = []
    heading = direction / np.linalg.norm(direction)
    stack = [(np.asarray(root, dtype=np.float64), heading, np.asarray(terminals, dtype=np.float64), 0)]
    while stack:
        start, ahead, goals, generation = stack.pop()
        radius = terminal_radius_mm * len(goals) ** (1 / exponent)
        middle = goals.mean(axis=0)
        single = len(goals) == 1
        share = 1.0 if single else generator.uniform(0.35, 0.5)
        end = start + share * (middle - start)
        span = float(np.linalg.norm(end - start))
        if not single:
            end = end + generator.normal(0, 0.06 * span, 3)
        # The branch starts in the direction of its parent and bends towards its end.
        bend = start + ahead * span * 0.4 + generator.normal(0, 0.05 * span, 3)
        t = np.linspace(0, 1, 3 if span < 12 else 5)[:, None]
        path = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
        paths.append(path)
        radii.append(radius)
        generations.append(generation)
        if single:
            continue
        forks.append(end)
        fork_radii.append(radius)
        onward = path[-1] - path[-2]
        onward /= max(float(np.linalg.norm(onward)), 1e-9)
        centered = goals - middle
        _, _, axes = np.linalg.svd(centered, full_matrices=False)
        along = centered @ axes[0]
        order = np.argsort(along, kind="stable")
        cut = int(np.clip(round(len(goals) * generator.uniform(0.35, 0.65)), 1, len(goals) - 1))
        for part in (order[:cut], order[cut:]):
            stack.append((end, onward, goals[part], generation + 1))
    return Tree(
        tuple(paths),
        np.asarray(radii),
        np.asarray(generations),
        np.asarray(forks).reshape(-1, 3),
        np.asarray(fork_radii),
    )
