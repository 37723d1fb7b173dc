from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meddift.errors import OptionsError
from meddift.models.schedule import noise_to_signal, signal_and_noise, timestep_for
from meddift.models.spec import Schedule

DDPM = Schedule("ddpm", "epsilon")
RFLOW = Schedule("rflow", "v")


@pytest.mark.parametrize("timestep", [0, 1, 20, 100, 500, 999])
def test_factors_are_those_of_monais_schedulers(timestep: int) -> None:
    import torch

    from meddift.models.monai_import import monai_autoencoder

    monai_autoencoder()
    from monai.networks.schedulers import DDPMScheduler, RFlowScheduler

    ddpm = DDPMScheduler(1000, schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0195, clip_sample=False)
    rflow = RFlowScheduler(1000, use_discrete_timesteps=False)
    one, zero, at = torch.ones(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1), torch.tensor([timestep])
    for spec, scheduler in ((DDPM, ddpm), (RFLOW, rflow)):
        signal, noise = signal_and_noise(spec, timestep)
        assert signal == pytest.approx(float(scheduler.add_noise(one, zero, at)), abs=2e-6)
        assert noise == pytest.approx(float(scheduler.add_noise(zero, one, at)), abs=2e-6)


@given(st.integers(0, 999), st.sampled_from([DDPM, RFLOW]))
def test_ratio_and_timestep_undo_each_other(timestep: int, schedule: Schedule) -> None:
    assert timestep_for(schedule, noise_to_signal(schedule, timestep)) == timestep


@given(st.integers(0, 400))
def test_equal_ratio_is_equal_noise_in_both_schedules(timestep: int) -> None:
    ratio = noise_to_signal(DDPM, timestep)
    other = timestep_for(RFLOW, ratio)
    # rflow: ratio = t / (1000 - t), so the step next to it differs by about 1000 / (1000 - t)^2.
    assert abs(noise_to_signal(RFLOW, other) - ratio) <= 0.51 * 1000 / (999 - other) ** 2


def test_ddpm_keeps_the_variance() -> None:
    for timestep in range(0, 1000, 37):
        signal, noise = signal_and_noise(DDPM, timestep)
        assert math.hypot(signal, noise) == pytest.approx(1)


@pytest.mark.parametrize("timestep", [-1, 1000, 2.5, True])
def test_impossible_timesteps_are_refused(timestep: object) -> None:
    with pytest.raises(OptionsError, match="from 0 to 999"):
        signal_and_noise(DDPM, timestep)  # type: ignore[arg-type]


@pytest.mark.parametrize("ratio", [-0.1, math.nan, math.inf])
def test_impossible_ratios_are_refused(ratio: float) -> None:
    with pytest.raises(OptionsError, match="noise-to-signal"):
        timestep_for(RFLOW, ratio)
