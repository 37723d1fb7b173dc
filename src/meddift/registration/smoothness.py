"""What a smooth displacement is, and the smoothest one that agrees with weighted measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement

import torch


@dataclass(frozen=True)
class Smoothness:
    """A penalty on vectors at the nodes of a lattice, in units of its nodes.

    The bending part is the sum of squared second differences (thin plate: affine displacements are free), the
    stretching part that of first differences.

    Attributes:
        bending: Weight of second differences.
        stretching: Weight of first differences.
    """

    bending: float
    stretching: float = 0.0

    def gradient(self, values: torch.Tensor) -> torch.Tensor:
        """Half the derivative of the penalty by (a, b, c, K) values: a symmetric, positive semidefinite operator."""
        result = torch.zeros_like(values)
        for axis in range(3):
            if self.stretching and values.shape[axis] > 1:
                _add_back(result, values.diff(dim=axis), axis, self.stretching)
        if self.bending:
            for first, second in combinations_with_replacement(range(3), 2):
                if values.shape[first] < 2 + (first == second) or values.shape[second] < 2 + (first == second):
                    continue
                weight = self.bending * (1.0 if first == second else 2.0)
                inner = values.diff(dim=first)
                back = torch.zeros_like(inner)
                _add_back(back, inner.diff(dim=second), second, weight)
                _add_back(result, back, first, 1.0)
        return result

    def diagonal(self) -> float:
        """Of the operator, away from the border."""
        # Second differences: 1 + 4 + 1 = 6 an axis; mixed ones: 2 * 4 a pair; first differences: 2 an axis.
        return self.bending * (3 * 6 + 3 * 8) + self.stretching * 6


def _add_back(result: torch.Tensor, differences: torch.Tensor, axis: int, weight: float) -> None:
    """Add the transpose of `diff` along an axis."""
    count = differences.shape[axis]
    result.narrow(axis, 1, count).add_(differences, alpha=weight)
    result.narrow(axis, 0, count).sub_(differences, alpha=weight)


def conjugate_gradient(
    operator: Callable[[torch.Tensor], torch.Tensor],
    right: torch.Tensor,
    precondition: Callable[[torch.Tensor], torch.Tensor],
    *,
    start: torch.Tensor | None = None,
    iterations: int = 30,
    tolerance: float = 1e-3,
) -> torch.Tensor:
    """Solve `operator(x) = right` for a symmetric positive operator (Hestenes and Stiefel 1952), preconditioned."""
    x = torch.zeros_like(right) if start is None else start.clone()
    residual = right - operator(x) if start is not None else right.clone()
    step = precondition(residual)
    direction = step.clone()
    product = (residual * step).sum()
    goal = (tolerance**2 * (right * precondition(right)).sum()).clamp(min=0)
    for _ in range(iterations):
        image = operator(direction)
        curvature = (direction * image).sum()
        # The one number that is waited for in a step, on a device as well.
        if not bool((product > goal) & (curvature > 0)):
            break
        length = product / curvature
        x.addcmul_(direction, length)
        residual.addcmul_(image, length, value=-1)
        step = precondition(residual)
        new = (residual * step).sum()
        direction.mul_(new / product).add_(step)
        product = new
    return x


def smooth_to(
    measured: torch.Tensor,
    weight: torch.Tensor,
    smoothness: Smoothness,
    *,
    start: torch.Tensor | None = None,
    iterations: int = 40,
) -> torch.Tensor:
    """The vectors that differ least from weighted measurements and are smooth.

    Args:
        measured: (a, b, c, 3) float32.
        weight: (a, b, c) float32, 0 where nothing was measured.
        smoothness: Penalty.
        start: A first guess.
        iterations: At most so many.
    """
    each = weight[..., None]

    def operator(values: torch.Tensor) -> torch.Tensor:
        return each * values + smoothness.gradient(values)

    scale = each + smoothness.diagonal()
    return conjugate_gradient(operator, each * measured, lambda r: r / scale, start=start, iterations=iterations)
