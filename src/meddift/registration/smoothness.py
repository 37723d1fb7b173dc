"""What a smooth displacement is, and the smoothest one that agrees with weighted measurements.

Vectors lie at the nodes of a grid, components first: (K, a, b, c). Before them may stand an axis of fields that have
nothing to do with each other, (G, K, a, b, c): what is done to all of them together takes fewer operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

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
        """Half the derivative of the penalty by (..., a, b, c) values: a symmetric, positive semidefinite operator.

        The square of the Laplacian holds all second differences of the thin plate, and the squares of the first
        differences at both ends of each line, which the thin plate leaves free.
        """
        # Differences of neighbours are read in place by a processor; for a graphics card a product is one operation.
        return self._by_differences(values) if values.device.type == "cpu" else self._by_products(values)

    def _by_differences(self, values: torch.Tensor) -> torch.Tensor:
        once = _laplacian(values)
        result = _laplacian(once).mul_(self.bending)
        for axis in range(-3, 0):
            count = values.shape[axis]
            for first, second in ((0, 1), (count - 1, count - 2)) if count > 1 else ():
                end = (values.select(axis, first) - values.select(axis, second)).mul_(self.bending)
                result.select(axis, first).sub_(end)
                result.select(axis, second).add_(end)
        return result.add_(once, alpha=self.stretching) if self.stretching else result

    def _by_products(self, values: torch.Tensor) -> torch.Tensor:
        lines = [_lines(self, count, values.dtype, values.device) for count in values.shape[-3:]]
        once = _added(None, values, [line[0] for line in lines])
        result = _added(None, once, [line[1] for line in lines])
        return _added(result, values, [line[2] for line in lines])

    def preconditioner(self, weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """An approximate inverse of `values -> weight * values + gradient(values)`, for conjugate gradients.

        With one weight everywhere, and but for the ends of lines, the operator is diagonal in cosines (the DCT-II
        diagonalises the Laplacian with mirrored ends; G. Strang, The discrete cosine transform, 1999). Weights that
        vary are taken out by a scale at each node.

        Args:
            weight: (a, b, c) float32, at least 0; of several fields (G, 1, a, b, c).
        """
        space = (-3, -2, -1)
        usual = (weight > 0).sum(dim=space, keepdim=True).clamp(min=1)
        usual = (_USUAL_WEIGHT * weight.sum(dim=space, keepdim=True) / usual).clamp(min=1e-9)
        scale = ((weight + usual) / (2 * usual)).rsqrt()
        bases = [_cosines(count, weight.dtype, weight.device) for count in weight.shape[-3:]]
        forward, back = [basis for basis, _, _ in bases], [basis for _, basis, _ in bases]
        x, y, z = (values for _, _, values in bases)
        laplacian = x[:, None, None] + y[:, None] + z
        inverse = 1 / (usual + self.bending * laplacian.square() + self.stretching * laplacian)
        return lambda values: scale * _along_axes(_along_axes(scale * values, forward) * inverse, back)


def _laplacian(values: torch.Tensor) -> torch.Tensor:
    """(..., a, b, c): the sum of what each value exceeds its neighbours by."""
    result = values * 6.0
    for axis in range(-3, 0):
        count = values.shape[axis]
        result.narrow(axis, 1, count - 1).sub_(values.narrow(axis, 0, count - 1))
        result.narrow(axis, 0, count - 1).sub_(values.narrow(axis, 1, count - 1))
        for end in (0, count - 1):
            result.select(axis, end).sub_(values.select(axis, end))
    return result


@lru_cache(maxsize=256)
def _lines(
    smoothness: Smoothness, count: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(count, count) each, of one line: its Laplacian, that times bending, and all that is not its square."""
    step = torch.eye(count, dtype=torch.float64).diff(dim=0)
    ends = step[[0, -1]] if count > 1 else step
    laplacian = step.T @ step
    rest = smoothness.stretching * laplacian - smoothness.bending * (ends.T @ ends)
    made = (each.to(dtype).to(device) for each in (laplacian, smoothness.bending * laplacian, rest))
    return next(made), next(made), next(made)


def _added(total: torch.Tensor | None, values: torch.Tensor, matrices: list[torch.Tensor]) -> torch.Tensor:
    """The sum of (..., a, b, c) values multiplied by a symmetric matrix along each axis, added to a total."""
    first, second, third = matrices
    *_, a, b, c = values.shape
    flat = values.reshape(-1, c)
    sum_ = flat @ third if total is None else torch.addmm(total.reshape(-1, c), flat, third)
    planes = values.reshape(-1, b, c)
    sum_ = torch.baddbmm(sum_.reshape(-1, b, c), second.expand(len(planes), b, b), planes)
    whole = values.reshape(-1, a, b * c)
    return torch.baddbmm(sum_.reshape(whole.shape), first.expand(len(whole), a, a), whole).reshape(values.shape)


@lru_cache(maxsize=256)
def _cosines(count: int, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(count, count), the orthonormal DCT-II: a row a frequency; its transpose; the eigenvalues of the Laplacian."""
    place = torch.arange(count, dtype=torch.float64)
    basis = torch.cos(math.pi / count * (place + 0.5) * place[:, None]) * math.sqrt(2 / count)
    basis[0] /= math.sqrt(2)
    values = 2 - 2 * torch.cos(math.pi / count * place)
    made = (each.contiguous().to(dtype).to(device) for each in (basis, basis.T, values))
    return next(made), next(made), next(made)


def _along_axes(values: torch.Tensor, matrices: list[torch.Tensor]) -> torch.Tensor:
    """(..., a, b, c), each line along each of the three axes multiplied by a matrix."""
    first, second, third = matrices
    values = second @ (values @ third.T)
    return (first @ values.flatten(-2)).reshape(values.shape)


def conjugate_gradient(
    operator: Callable[[torch.Tensor], torch.Tensor],
    right: torch.Tensor,
    precondition: Callable[[torch.Tensor], torch.Tensor],
    *,
    start: torch.Tensor | None = None,
    iterations: int,
    tolerance: float = 1e-3,
) -> torch.Tensor:
    """Solve `operator(x) = right` for a symmetric positive operator (Hestenes and Stiefel 1952), preconditioned.

    Of several fields, (G, K, a, b, c), each is solved for on its own, and all together.
    """

    def dot(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one * other).sum(dim=(-4, -3, -2, -1), keepdim=True)

    x = torch.zeros_like(right) if start is None else start.clone()
    residual = right - operator(x) if start is not None else right.clone()
    step = precondition(residual)
    direction = step.clone()
    product = dot(residual, step)
    goal = (tolerance**2 * dot(right, precondition(right))).clamp(min=0)
    going = torch.ones_like(goal, dtype=torch.bool)
    for _ in range(iterations):
        image = operator(direction)
        curvature = dot(direction, image)
        going &= (product > goal) & (curvature > 0)
        # Only a processor can look without waiting whether it is done; elsewhere the steps that are left do nothing.
        if going.device.type == "cpu" and not going.any():
            break
        length = torch.where(going, product / curvature, 0.0)
        x.addcmul_(direction, length.expand_as(x))
        residual.addcmul_(image, length.expand_as(x), value=-1)
        step = precondition(residual)
        new = dot(residual, step)
        direction.mul_(torch.where(going, new / product, 0.0)).add_(step)
        product = new
    return x


class Smoother:
    """Finds the vectors that differ least from weighted measurements and are smooth.

    Args:
        weight: (a, b, c) float32, 0 where nothing was measured; of several fields (G, 1, a, b, c).
        smoothness: Penalty.
    """

    def __init__(self, weight: torch.Tensor, smoothness: Smoothness) -> None:
        self._weight, self._smoothness = weight, smoothness
        self._precondition = smoothness.preconditioner(weight)

    def _operator(self, values: torch.Tensor) -> torch.Tensor:
        return self._smoothness.gradient(values).addcmul_(self._weight, values)

    def to(self, measured: torch.Tensor, *, start: torch.Tensor | None = None, iterations: int = 8) -> torch.Tensor:
        """The smooth vectors closest to measurements.

        Args:
            measured: (3, a, b, c) float32, broadcast to all fields.
            start: A first guess.
            iterations: At most so many.
        """
        right = self._weight * measured
        return conjugate_gradient(self._operator, right, self._precondition, start=start, iterations=iterations)
