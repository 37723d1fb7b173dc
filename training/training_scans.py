"""Scans for training: read or drawn once, turned to RAS, at the working spacing, kept in memory as HU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch

from meddift.body import body_mask
from meddift.geometry import Grid
from meddift.volume import Volume
from meddift_lab.synthetic import chest_phantom
from meddift_lab.synthetic.degrade import replace_table
from meddift_lab.synthetic.noise import noise_level, remove_noise

#: Never trained on: validation scans, and the one patient whose crops test matching across fields of view.
HELD_OUT = ("LIDC-0314", "CMB-CRC", "TotalSeg", "native")


@dataclass(frozen=True)
class Scan:
    """A scan at the working spacing.

    Attributes:
        name: File name without suffix.
        hu: (X, Y, Z) float32, HU, RAS axes.
        spacing_mm: Isotropic.
        weight: How often it is drawn, relative to others of its size.
        others: The same anatomy again, on the same lattice: without its noise, on another table.
    """

    name: str
    hu: torch.Tensor
    spacing_mm: float
    weight: float = 1.0
    others: tuple[torch.Tensor, ...] = ()


def load_scans(folder: Path, *, spacing_mm: float) -> list[Scan]:
    """Read every training scan of a folder."""
    scans = []
    for path in sorted(folder.glob("*.nii.gz")):
        if any(word in path.name for word in HELD_OUT):
            continue
        image = nibabel.load(path)
        volume = Volume(np.asarray(image.dataobj, dtype=np.float32), Grid(image.shape, image.affine)).reoriented("RAS")
        volume = volume.resampled_along_axes(volume.grid.respaced(spacing_mm))
        # Noise that both views show would be texture to match by: most views start from a scan without it.
        body = body_mask(volume)
        smooth = remove_noise(volume, std_hu=noise_level(volume, body=body))
        versions = [
            torch.from_numpy(np.clip(v.data, -1000, 3000))
            for v in (volume, smooth, replace_table(smooth, gap_mm=4.0, body=body))
        ]
        scans.append(
            Scan(path.name.removesuffix(".nii.gz"), versions[0], spacing_mm, others=(versions[1], versions[2]))
        )
    if not scans:
        raise SystemExit(f"no training scans (*.nii.gz) in {folder}")
    return scans


def draw_phantoms(count: int, *, spacing_mm: float, weight: float = 1.0, first_seed: int = 0) -> list[Scan]:
    """Draw chests, each from a seed of its own; about 3 s each at 2 mm.

    Args:
        count: How many.
        spacing_mm: Voxel size.
        weight: How often one is drawn, relative to a scan of its size.
        first_seed: Of the first one. Evaluation draws its phantoms from other seeds.
    """
    phantoms = []
    for seed in range(first_seed, first_seed + count):
        # Views get noise of their own; a few HU here keep organs from being perfectly even.
        drawn = chest_phantom(seed, spacing_mm=spacing_mm, lesions=seed % 7, noise_std_hu=4.0, table=seed % 2 == 0)
        hu = np.clip(drawn.volume.data.astype(np.float32), -1000, 3000)
        phantoms.append(Scan(f"phantom-{seed}", torch.from_numpy(hu), spacing_mm, weight))
    return phantoms
