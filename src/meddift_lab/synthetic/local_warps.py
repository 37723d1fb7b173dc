"""Smooth local changes as a known transform."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import OptionsError
from meddift_lab.synthetic.deformation import LARGEST_GRADIENT, KnownTransform

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LocalWarps(KnownTransform):
    """A few Gaussian bumps: `u(x) = sum_k a_k exp(-|x - c_k|^2 / (2 s_k^2))`.

    The gradient of one bump has norm at most |a_k| exp(-1/2) / s_k. Their sum bounds the Lipschitz constant
    L of `u`; it must be at most 0.8. Then the map is a bijection and its determinant at least (1 - L)^3.

    Attributes:
        centers: (K, 3) float64, fixed world RAS mm.
        amplitudes: (K, 3) float64, displacement at the centres, mm.
        widths: (K,) float64, s_k, mm.

    Raises:
        OptionsError: if the bound on the gradient is above 0.8.
    """

    centers: Floats
    amplitudes: Floats
    widths: Floats

    def __post_init__(self) -> None:
        """Check the bound on the gradient; see `Raises` of the class."""
        if not self.gradient_bound <= LARGEST_GRADIENT:
            raise OptionsError(
                f"local warps are too steep (bound {self.gradient_bound:.2f}, at most {LARGEST_GRADIENT}); "
                "use smaller amplitudes, larger widths, or fewer bumps"
            )

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        low: ArrayLike,
        high: ArrayLike,
        count: int = 8,
        amplitude_mm: float = 5.0,
        width_mm: float = 35.0,
    ) -> LocalWarps:
        """Bumps with random directions at random positions in a box.

        Args:
            seed: Seed; equal seeds give equal warps.
            low: (3,) least corner of the box, fixed world RAS mm.
            high: (3,) greatest corner, mm.
            count: Number of bumps.
            amplitude_mm: Largest displacement of one bump; all are scaled down if the gradient bound requires it.
            width_mm: Mean width s_k; the widths vary by a quarter.
        """
        generator = np.random.default_rng(seed)
        centers = generator.uniform(np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64), (count, 3))
        direction = generator.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        amplitudes = direction * generator.uniform(0.5, 1.0, (count, 1)) * amplitude_mm
        widths = generator.uniform(0.75, 1.25, count) * width_mm
        bound = _gradient_bound(amplitudes, widths)
        # 0.7 is below the limit of 0.8: the determinant stays at least 0.3^3 even if all bumps coincide.
        return cls(centers, amplitudes * min(1.0, 0.7 / max(bound, 1e-12)), widths)

    @property
    def gradient_bound(self) -> float:
        """Upper bound of the Lipschitz constant of the displacement."""
        return _gradient_bound(self.amplitudes, self.widths)

    def _bump(self, positions: Floats, k: int) -> tuple[Floats, Floats]:
        """Offsets of (N, 3) points from the centre of bump k, (N, 3) mm, and the values of its Gaussian, (N,)."""
        offset = positions - self.centers[k]
        return offset, np.exp(-(offset**2).sum(axis=1) / (2 * self.widths[k] ** 2))

    def displacement(self, positions: Floats) -> Floats:
        """Displacements of (N, 3) points, mm."""
        result = np.zeros_like(positions)
        for k in range(len(self.widths)):
            result += self._bump(positions, k)[1][:, None] * self.amplitudes[k]
        return result

    def gradient(self, positions: Floats) -> Floats:
        """Derivatives of the displacement: (N, 3, 3) float64."""
        result = np.zeros((len(positions), 3, 3))
        for k in range(len(self.widths)):
            offset, weight = self._bump(positions, k)
            slope = offset * (-weight / self.widths[k] ** 2)[:, None]
            result += self.amplitudes[k][None, :, None] * slope[:, None, :]
        return result


def _gradient_bound(amplitudes: Floats, widths: Floats) -> float:
    """Sum over bumps of the largest gradient norm of each."""
    return float((np.linalg.norm(amplitudes, axis=1) / widths).sum() * np.exp(-0.5))
