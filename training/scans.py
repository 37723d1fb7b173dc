"""Scans for training: read once, turned to RAS, brought to the working spacing, kept in memory as HU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch

from meddift.geometry import Grid
from meddift.volume import Volume

#: Never trained on: validation scans, and the one patient whose crops test matching across fields of view.
HELD_OUT = ("LIDC-0314", "CMB-CRC", "TotalSeg", "native")


@dataclass(frozen=True)
class Scan:
    """A scan at the working spacing.

    Attributes:
        name: File name without suffix.
        hu: (X, Y, Z) float32, HU, RAS axes.
        spacing_mm: Isotropic.
    """

    name: str
    hu: torch.Tensor
    spacing_mm: float


def load_scans(folder: Path, *, spacing_mm: float) -> list[Scan]:
    """Read every training scan of a folder."""
    scans = []
    for path in sorted(folder.glob("*.nii.gz")):
        if any(word in path.name for word in HELD_OUT):
            continue
        image = nibabel.load(path)
        volume = Volume(np.asarray(image.dataobj, dtype=np.float32), Grid(image.shape, image.affine)).reoriented("RAS")
        volume = volume.resampled_along_axes(volume.grid.respaced(spacing_mm))
        hu = np.clip(volume.data, -1000, 3000)
        scans.append(Scan(path.name.removesuffix(".nii.gz"), torch.from_numpy(hu), spacing_mm))
    if not scans:
        raise SystemExit(f"no training scans (*.nii.gz) in {folder}")
    return scans
