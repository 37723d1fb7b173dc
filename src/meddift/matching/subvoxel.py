"""Sub-voxel maxima: the maximum of a quadratic fitted to the 27 values around the best voxel."""

from __future__ import annotations

from functools import cache
from itertools import product

import torch

#: Jacobi sweeps over all off-diagonal elements; convergence is quadratic, and four suffice for double precision.
SWEEPS = 4


@cache
def _solution(device: torch.device) -> torch.Tensor:
    """(10, 27) float64: least-squares solution for the coefficients of 1, x, y, z, x^2, y^2, z^2, xy, xz, yz."""
    x, y, z = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=3)), dtype=torch.float64).T
    design = torch.stack([torch.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], dim=1)
    solution: torch.Tensor = torch.linalg.pinv(design)
    return solution.to(device)


def peak_offsets(values: torch.Tensor, *, limit: float = 0.75) -> torch.Tensor:
    """Offset of the maximum from the central voxel.

    Args:
        values: (N, 3, 3, 3) float, similarities; NaN or -inf outside the scan.
        limit: Largest offset along each axis, voxels.

    Returns:
        (N, 3) float64 on the same device, voxels; 0 where the fit has no maximum or a value is missing.
    """
    flat = values.double().reshape(len(values), 27)
    usable = torch.isfinite(flat).all(dim=1)
    coefficient = torch.where(usable[:, None], flat, 0.0) @ _solution(flat.device).T
    gradient = coefficient[:, 1:4]
    diagonal = [2 * each for each in coefficient[:, 4:7].unbind(dim=1)]
    # A maximum needs a negative definite Hessian; there is no offset along a ridge (eigenvalue near 0).
    value, along, rotations = _principal(diagonal, list(coefficient[:, 7:10].unbind(dim=1)), list(gradient.unbind(1)))
    least = -1e-3 * torch.stack(value).abs().amax(dim=0).clamp(min=1e-12)
    curved = [each < least for each in value]
    moved = [torch.where(c, -g / torch.where(c, v, -1.0), 0.0) for c, g, v in zip(curved, along, value, strict=True)]
    for p, q, cosine, sine in reversed(rotations):
        moved[p], moved[q] = cosine * moved[p] + sine * moved[q], cosine * moved[q] - sine * moved[p]
    answered = usable & (curved[0] | curved[1] | curved[2])
    return torch.where(answered[:, None], torch.stack(moved, dim=1), 0.0).clamp(-limit, limit)


def _principal(
    diagonal: list[torch.Tensor], beside: list[torch.Tensor], vector: list[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[tuple[int, int, torch.Tensor, torch.Tensor]]]:
    """Diagonalise N symmetric (3, 3) matrices together by Jacobi rotations (C. G. J. Jacobi 1846).

    `torch.linalg.eigh` processes small matrices one after the other, and synchronises a GPU.

    Args:
        diagonal: Three (N,) float64 tensors, the diagonal elements.
        beside: Three (N,) float64 tensors, the elements 01, 02 and 12.
        vector: Three (N,) float64 tensors, the components of one vector for each matrix.

    Returns:
        The eigenvalues, the components of the vectors along the eigenvectors, and the rotations (p, q, cosine, sine)
        that were applied.
    """
    value, along = list(diagonal), list(vector)
    other = {(0, 1): beside[0], (0, 2): beside[1], (1, 2): beside[2]}
    rotations = []
    for _ in range(SWEEPS):
        for p, q in ((0, 1), (0, 2), (1, 2)):
            off = other[p, q]
            half = (value[q] - value[p]) / 2
            # Tangent of the angle that makes the element vanish; 0 where it is 0 already.
            tangent = off / (half.abs() + torch.hypot(half, off)).clamp_(min=1e-300)
            tangent = torch.where(half < 0, -tangent, tangent)
            cosine = (1 + tangent.square()).rsqrt_()
            sine = tangent * cosine
            value[p], value[q] = value[p] - tangent * off, value[q] + tangent * off
            other[p, q] = torch.zeros_like(off)
            r = 3 - p - q
            one, two = (min(r, p), max(r, p)), (min(r, q), max(r, q))
            other[one], other[two] = cosine * other[one] - sine * other[two], sine * other[one] + cosine * other[two]
            along[p], along[q] = cosine * along[p] - sine * along[q], sine * along[p] + cosine * along[q]
            rotations.append((p, q, cosine, sine))
    return value, along, rotations
