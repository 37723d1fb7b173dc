"""Smoothness penalties on displacements, and smoothing of weighted measurements.

Vectors lie at the nodes of a grid, components first: (K, a, b, c). A further axis of independent fields may come
first, (G, K, a, b, c), so that all of them are processed together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch

#: Share of the mean weight by which the preconditioner replaces varying weights.
_USUAL_WEIGHT = 0.3


class Buffers:
    """Tensors that a loop writes again and again: fresh memory for each result would take longer than computing it."""

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}

    def like(self, values: torch.Tensor, name: str) -> torch.Tensor:
        """A contiguous tensor of the shape and type of `values`, with anything in it; the same one for each name."""
        kept = self._kept.get(name)
        if kept is None or kept.shape != values.shape:
            kept = self._kept[name] = torch.empty_like(values, memory_format=torch.contiguous_format)
        return kept


@dataclass(frozen=True)
class Smoothness:
    """A penalty on vectors at the nodes of a grid; distances are in nodes.

    The bending term is the sum of squared second differences (thin plate: affine displacements have no cost), the
    stretching term that of squared first differences.

    Attributes:
        bending: Weight of second differences.
        stretching: Weight of first differences.
    """

    bending: float
    stretching: float = 0.0

    def gradient(self, values: torch.Tensor, buffers: Buffers | None = None) -> torch.Tensor:
        """Half the derivative of the penalty by (..., a, b, c) values: a symmetric, positive semidefinite operator.

        The squared Laplacian contains all second differences of the thin plate, and in addition squares of the first
        differences at both ends of each line, which are subtracted.

        Args:
            values: The values.
            buffers: Memory for the result, which the next call with the same buffers overwrites; None = new memory.
        """
        # The CPU computes differences in place; on a GPU one matrix product is a single operation.
        if values.device.type == "cpu":
            return self._by_differences(values, Buffers() if buffers is None else buffers)
        return self._by_products(values)

    def _by_differences(self, values: torch.Tensor, buffers: Buffers) -> torch.Tensor:
        once = _laplacian(values, buffers.like(values, "once"))
        result = _laplacian(once, buffers.like(values, "twice")).mul_(self.bending)
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

        For a constant weight and apart from the ends of lines, the operator is diagonalised by the DCT-II, as is the
        Laplacian with mirrored ends (G. Strang, The discrete cosine transform, 1999). Varying weights are removed by
        scaling each node.

        Args:
            weight: (a, b, c) float32, at least 0; for several fields (G, 1, a, b, c).

        Returns:
            A function whose result is overwritten by its next call.
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
        buffers = Buffers()

        def solved(values: torch.Tensor) -> torch.Tensor:
            one, other = buffers.like(values, "one"), buffers.like(values, "other")
            turned = _along_axes(torch.mul(scale, values, out=one), forward, other)
            return _along_axes(turned.mul_(inverse), back, one).mul_(scale)

        return solved


def _laplacian(values: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """(..., a, b, c), negative Laplacian: the sum of the differences of each value to its neighbours."""
    torch.mul(values, 6.0, out=result)
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
    """Matrices (count, count) of one line: its Laplacian, this times bending, and the terms beside its square."""
    step = torch.eye(count, dtype=torch.float64).diff(dim=0)
    ends = step[[0, -1]] if count > 1 else step
    laplacian = step.T @ step
    rest = smoothness.stretching * laplacian - smoothness.bending * (ends.T @ ends)
    made = (each.to(dtype).to(device) for each in (laplacian, smoothness.bending * laplacian, rest))
    return next(made), next(made), next(made)


def _added(total: torch.Tensor | None, values: torch.Tensor, matrices: list[torch.Tensor]) -> torch.Tensor:
    """Add to a total the (..., a, b, c) values multiplied by a symmetric matrix along each axis."""
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
    """(count, count) orthonormal DCT-II, one row for each frequency; its transpose; eigenvalues of the Laplacian."""
    place = torch.arange(count, dtype=torch.float64)
    basis = torch.cos(math.pi / count * (place + 0.5) * place[:, None]) * math.sqrt(2 / count)
    basis[0] /= math.sqrt(2)
    values = 2 - 2 * torch.cos(math.pi / count * place)
    made = (each.contiguous().to(dtype).to(device) for each in (basis, basis.T, values))
    return next(made), next(made), next(made)


def _along_axes(values: torch.Tensor, matrices: list[torch.Tensor], result: torch.Tensor) -> torch.Tensor:
    """Multiply (..., a, b, c) values by a matrix along each axis into `result`; `values` are overwritten."""
    first, second, third = matrices
    *_, a, b, c = values.shape
    torch.mm(values.view(-1, c), third.T, out=result.view(-1, c))
    planes = result.view(-1, b, c)
    torch.bmm(second.expand(len(planes), b, b), planes, out=values.view(-1, b, c))
    whole = values.view(-1, a, b * c)
    torch.bmm(first.expand(len(whole), a, a), whole, out=result.view(-1, a, b * c))
    return result


def conjugate_gradient(
    operator: Callable[[torch.Tensor], torch.Tensor],
    right: torch.Tensor,
    precondition: Callable[[torch.Tensor], torch.Tensor],
    *,
    start: torch.Tensor | None = None,
    iterations: int,
    tolerance: float = 1e-3,
) -> torch.Tensor:
    """Solve `operator(x) = right` by preconditioned conjugate gradients (Hestenes and Stiefel 1952).

    Args:
        operator: A symmetric positive operator; its result may be overwritten by the next call.
        right: (K, a, b, c) right-hand side, or (G, K, a, b, c) of independent fields, which are solved together.
        precondition: An approximate inverse of the operator; its result may be overwritten by the next call.
        start: Initial x; None = 0.
        iterations: Largest number of iterations.
        tolerance: Relative residual at which to stop.

    Returns:
        x, of the shape of `right`.
    """
    space = (-4, -3, -2, -1)
    product_of = torch.empty_like(right)

    def dot(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.mul(one, other, out=product_of).sum(dim=space, keepdim=True)

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
        # Only the CPU checks for convergence, which would synchronise a GPU; there the remaining steps change nothing.
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
    """Smooths weighted measurements: minimises weighted squared differences plus a smoothness penalty.

    Args:
        weight: (a, b, c) float32, 0 where nothing was measured; for several fields (G, 1, a, b, c).
        smoothness: The penalty.
    """

    def __init__(self, weight: torch.Tensor, smoothness: Smoothness) -> None:
        self._weight, self._smoothness = weight, smoothness
        self._precondition = smoothness.preconditioner(weight)
        self._buffers = Buffers()

    def _operator(self, values: torch.Tensor) -> torch.Tensor:
        return self._smoothness.gradient(values, self._buffers).addcmul_(self._weight, values)

    def to(self, measured: torch.Tensor, *, start: torch.Tensor | None = None, iterations: int = 8) -> torch.Tensor:
        """Smooth measurements.

        Args:
            measured: (3, a, b, c) float32, broadcast to all fields.
            start: Initial solution; None = 0.
            iterations: Largest number of iterations.

        Returns:
            (3, a, b, c) float32; for several fields (G, 3, a, b, c).
        """
        right = self._weight * measured
        return conjugate_gradient(self._operator, right, self._precondition, start=start, iterations=iterations)
