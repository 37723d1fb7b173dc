"""From the best voxel to the best point: the top of the quadratic that fits the 27 values around it."""

from __future__ import annotations

from functools import cache
from itertools import product

import torch


@cache
def _solution() -> torch.Tensor:
    """(10, 27) float64: least squares over the 27 neighbours, for 1, x, y, z, x^2, y^2, z^2, xy, xz, yz."""
    x, y, z = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=3)), dtype=torch.float64).T
    design = torch.stack([torch.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], dim=1)
    solution: torch.Tensor = torch.linalg.pinv(design)
    return solution


def peak_offsets(values: torch.Tensor, *, limit: float = 0.75) -> torch.Tensor:
    """Offset of the maximum from the middle voxel.

    Args:
        values: (N, 3, 3, 3) float, similarities; NaN or -inf where there is no voxel.
        limit: An offset component is clipped to this many voxels.

    Returns:
        (N, 3) float64 on the same device, voxels; 0 where the fit has no maximum or a neighbour is missing.
    """
    flat = values.double().reshape(len(values), 27)
    usable = torch.isfinite(flat).all(dim=1)
    coefficient = torch.where(usable[:, None], flat, 0.0) @ _solution().T.to(flat.device)
    gradient = coefficient[:, 1:4]
    hessian = flat.new_empty((len(flat), 3, 3))
    for axis in range(3):
        hessian[:, axis, axis] = 2 * coefficient[:, 4 + axis]
    for position, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        hessian[:, a, b] = hessian[:, b, a] = coefficient[:, 7 + position]
    # A maximum needs a negative definite Hessian; along a ridge (eigenvalue near 0) nothing is moved.
    value, vector = torch.linalg.eigh(hessian)
    curved = value < -1e-3 * value.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
    inverse = torch.where(curved, 1.0 / torch.where(curved, value, -1.0), 0.0)
    along = (vector * gradient[:, :, None]).sum(dim=1) * inverse
    offset = -(vector * along[:, None]).sum(dim=2)
    return torch.where((usable & curved.any(dim=1))[:, None], offset, 0.0).clamp(-limit, limit)
