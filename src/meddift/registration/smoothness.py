"""What a smooth displacement is, and the smoothest one that agrees with weighted measurements.

Vectors lie at the nodes of a grid, components first: (K, a, b, c).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

#: Of the mean weight, what the preconditioner puts in place of weights that vary from node to node.
_USUAL_WEIGHT = 0.3


@dataclass(frozen=True)
class Smoothness:
    """A penalty on vectors at the nodes of a grid, in units of its nodes.

    The bending part is the sum of squared second differences (thin plate: affine displacements are free), the
    stretching part that of first differences.

    Attributes:
        bending: Weight of second differences.
        stretching: Weight of first differences.
    """

    bending: float
    stretching: float = 0.0

    def gradient(self, values: torch.Tensor) -> torch.Tensor:
        """Half the derivative of the penalty by (K, a, b, c) values: a symmetric, positive semidefinite operator."""
        once = _laplacian(values)
        # The square of the Laplacian holds all second differences of the thin plate, and the squares of the first
        # differences at both ends of each line, which the thin plate leaves free.
        result = _laplacian(once).mul_(self.bending)
        for axis in range(1, 4):
            count = values.shape[axis]
            for first, second in ((0, 1), (count - 1, count - 2)) if count > 1 else ():
                end = (values.select(axis, first) - values.select(axis, second)).mul_(self.bending)
                result.select(axis, first).sub_(end)
                result.select(axis, second).add_(end)
        return result.add_(once, alpha=self.stretching) if self.stretching else result

    def preconditioner(self, weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """An approximate inverse of `values -> weight * values + gradient(values)`, for conjugate gradients.

        With one weight everywhere, and but for the ends of lines, the operator is diagonal in cosines (the DCT-II
        diagonalises the Laplacian with mirrored ends; G. Strang, The discrete cosine transform, 1999). Weights that
        vary are taken out by a scale at each node.

        Args:
            weight: (a, b, c) float32, at least 0.
        """
        usual = (_USUAL_WEIGHT * weight.sum() / (weight > 0).sum().clamp(min=1)).clamp(min=1e-9)
        scale = ((weight + usual) / (2 * usual)).rsqrt()
        bases = [_cosines(weight, count) for count in weight.shape]
        back = [basis.T.contiguous() for basis in bases]
        x, y, z = (2 - 2 * torch.cos(math.pi / n * _counted(weight, n)) for n in weight.shape)
        laplacian = x[:, None, None] + y[:, None] + z
        inverse = 1 / (usual + self.bending * laplacian.square() + self.stretching * laplacian)
        return lambda values: scale * _along_axes(_along_axes(scale * values, bases) * inverse, back)


def _laplacian(values: torch.Tensor) -> torch.Tensor:
    """(K, a, b, c): the sum of what each value exceeds its neighbours by."""
    result = values * (2.0 * (values.dim() - 1))
    for axis in range(1, values.dim()):
        count = values.shape[axis]
        result.narrow(axis, 1, count - 1).sub_(values.narrow(axis, 0, count - 1))
        result.narrow(axis, 0, count - 1).sub_(values.narrow(axis, 1, count - 1))
        for end in (0, count - 1):
            result.select(axis, end).sub_(values.select(axis, end))
    return result


def _counted(like: torch.Tensor, count: int) -> torch.Tensor:
    """0, 1, ... as numbers of the type of another tensor, on its device."""
    return torch.arange(count, dtype=like.dtype, device=like.device)


def _cosines(like: torch.Tensor, count: int) -> torch.Tensor:
    """(count, count), the orthonormal DCT-II: a row a frequency."""
    frequency, place = _counted(like, count)[:, None], _counted(like, count)
    basis = torch.cos(math.pi / count * (place + 0.5) * frequency) * math.sqrt(2 / count)
    basis[0] /= math.sqrt(2)
    return basis


def _along_axes(values: torch.Tensor, matrices: list[torch.Tensor]) -> torch.Tensor:
    """(K, a, b, c), each line along each of the three axes multiplied by a matrix."""
    first, second, third = matrices
    values = second @ (values @ third.T)
    return (first @ values.flatten(2)).reshape(values.shape)


def conjugate_gradient(
    operator: Callable[[torch.Tensor], torch.Tensor],
    right: torch.Tensor,
    precondition: Callable[[torch.Tensor], torch.Tensor],
    *,
    start: torch.Tensor | None = None,
    iterations: int,
    tolerance: float = 1e-3,
) -> torch.Tensor:
    """Solve `operator(x) = right` for a symmetric positive operator (Hestenes and Stiefel 1952), preconditioned."""
    x = torch.zeros_like(right) if start is None else start.clone()
    residual = right - operator(x) if start is not None else right.clone()
    step = precondition(residual)
    direction = step.clone()
    product = (residual * step).sum()
    goal = (tolerance**2 * (right * precondition(right)).sum()).clamp(min=0)
    going = torch.ones_like(goal, dtype=torch.bool)
    for _ in range(iterations):
        image = operator(direction)
        curvature = (direction * image).sum()
        going &= (product > goal) & (curvature > 0)
        # Only a processor can look without waiting whether it is done; elsewhere the steps that are left do nothing.
        if going.device.type == "cpu" and not going:
            break
        length = torch.where(going, product / curvature, 0.0)
        x.addcmul_(direction, length)
        residual.addcmul_(image, length, value=-1)
        step = precondition(residual)
        new = (residual * step).sum()
        direction.mul_(torch.where(going, new / product, 0.0)).add_(step)
        product = new
    return x


def smooth_to(
    measured: torch.Tensor,
    weight: torch.Tensor,
    smoothness: Smoothness,
    *,
    start: torch.Tensor | None = None,
    iterations: int = 8,
) -> torch.Tensor:
    """The vectors that differ least from weighted measurements and are smooth.

    Args:
        measured: (3, a, b, c) float32.
        weight: (a, b, c) float32, 0 where nothing was measured.
        smoothness: Penalty.
        start: A first guess.
        iterations: At most so many.
    """

    def operator(values: torch.Tensor) -> torch.Tensor:
        return smoothness.gradient(values).add_(weight * values)

    precondition = smoothness.preconditioner(weight)
    return conjugate_gradient(operator, weight * measured, precondition, start=start, iterations=iterations)
