"""How much noise a timestep means, for the two schedules of latent diffusion models."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from meddift.errors import OptionsError
from meddift.models.spec import Schedule


def signal_and_noise(schedule: Schedule, timestep: int) -> tuple[float, float]:
    """Factors a, b of `a * latent + b * noise` at a timestep.

    ddpm (Ho et al. 2020, scaled-linear betas of Rombach et al. 2022): a = sqrt(abar_t), b = sqrt(1 - abar_t).
    rflow (rectified flow, Liu et al. 2022): a = 1 - t / steps, b = t / steps.

    Args:
        schedule: The model's schedule.
        timestep: Integer, 0 <= timestep < steps.

    Raises:
        OptionsError: if the timestep is outside the schedule.
    """
    check_timestep(schedule, timestep)
    if schedule.kind == "rflow":
        part = timestep / schedule.steps
        return 1.0 - part, part
    kept = float(_kept_variance(schedule)[timestep])
    return math.sqrt(kept), math.sqrt(1.0 - kept)


def noise_to_signal(schedule: Schedule, timestep: int) -> float:
    """Standard deviation of the noise over that of the signal's factor; comparable between schedules."""
    signal, noise = signal_and_noise(schedule, timestep)
    return noise / signal


def timestep_for(schedule: Schedule, ratio: float) -> int:
    """The timestep whose noise-to-signal ratio is closest to `ratio`.

    Raises:
        OptionsError: if the ratio is negative or not finite.
    """
    if not (math.isfinite(ratio) and ratio >= 0):
        raise OptionsError(f"a noise-to-signal ratio must be a number of at least 0, got {ratio}")
    if schedule.kind == "rflow":
        return min(round(schedule.steps * ratio / (1.0 + ratio)), schedule.steps - 1)
    kept = _kept_variance(schedule)
    return int(np.argmin(np.abs(np.sqrt((1.0 - kept) / kept) - ratio)))


def check_timestep(schedule: Schedule, timestep: int) -> None:
    """Raise OptionsError unless `timestep` is an integer of the schedule."""
    if isinstance(timestep, bool) or int(timestep) != timestep or not 0 <= timestep < schedule.steps:
        raise OptionsError(f"a timestep is an integer from 0 to {schedule.steps - 1}, got {timestep!r}")


@cache
def _kept_variance(schedule: Schedule) -> NDArray[np.float64]:
    """(steps,) cumulative product of 1 - beta, with betas linear in their square roots."""
    betas = np.linspace(schedule.beta_start**0.5, schedule.beta_end**0.5, schedule.steps) ** 2
    return np.asarray(np.cumprod(1.0 - betas), dtype=np.float64)
