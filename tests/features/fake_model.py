"""A model without a network: features that are known exactly, and a record of what was asked."""

import numpy as np

from meddift.geometry import Grid
from meddift.models import find_spec, prepare_volume
from meddift.volume import Volume


class FakeModel:
    """Answers as DiffusionModel does, with maps that depend on the latent, the level and the noise seed."""

    def __init__(self, weights_hash: str = "a" * 64, *, spoil: str = "") -> None:
        self.spec = find_spec("builtin")
        self.weights_hash = weights_hash
        self.precision = "float32"
        self.device = "cpu"
        self.spoil = spoil
        self.asked: list[dict] = []
        self.batches: list[int] = []

    def prepare(self, volume, *, body=False):
        return prepare_volume(volume, self.spec, body=body)

    def encode(self, prepared, *, latent="mean", seed=0, spare=False):
        self.asked.append({"latent": latent, "seed": seed, "spare": spare})
        grid = prepared.grid.downsampled(2)
        blocks = prepared.data.reshape(grid.shape[0], 2, grid.shape[1], 2, grid.shape[2], 2)
        return Volume(blocks.transpose(1, 3, 5, 0, 2, 4).reshape(8, *grid.shape), grid)

    def levels_of(self, latents, *, timestep, levels, noise_seeds, spacings):
        assert len({latent.grid.shape for latent in latents}) == 1
        self.batches.append(len(latents))
        for seed, spacing in zip(noise_seeds, spacings, strict=True):
            self.asked.append({"timestep": timestep, "levels": tuple(levels), "noise_seed": seed, "spacing": spacing})
        return [
            {name: self.level(latent, name, seed) for name in levels}
            for latent, seed in zip(latents, noise_seeds, strict=True)
        ]

    def level(self, latent, name, noise_seed):
        factor = {"up0": 4, "up1": 2, "up2": 1, "up3": 1}[name]
        grid = latent.grid.downsampled(factor)
        random = np.random.default_rng([0 if noise_seed is None else noise_seed, factor])
        data = random.standard_normal((3 + factor, *grid.shape)).astype(np.float32)
        data[0] = latent.data[0, ::factor, ::factor, ::factor]
        if name == self.spoil:
            data[1, 0, 0, 0] = np.inf
        return Volume(data, grid)

    @property
    def noise_seeds(self):
        return [entry["noise_seed"] for entry in self.asked if "noise_seed" in entry]


def make_scan(seed: int = 0, shape=(30, 26, 22), spacing=(1.9, 2.2, 2.5)) -> Volume:
    """Smooth structure in HU on a slightly oblique grid that is not RAS."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = gaussian_filter(noise, 2.0)
    turn = np.array([[np.cos(0.1), -np.sin(0.1), 0], [np.sin(0.1), np.cos(0.1), 0], [0, 0, 1]]) @ np.diag([-1, -1, 1])
    affine = np.eye(4)
    affine[:3, :3] = turn * np.asarray(spacing)
    affine[:3, 3] = [40.0, -20.0, 300.0]
    return Volume((smooth / smooth.std() * 150).astype(np.int16), Grid(shape, affine))
