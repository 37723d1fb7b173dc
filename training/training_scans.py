"""Scans for training: read or drawn once, turned to RAS, at the working spacing, kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import torch

from contrast import interp, tissue_classes
from meddift.body import body_mask
from meddift.geometry import Grid
from meddift.models import find_spec
from meddift.models.intensity import robust_range
from meddift.volume import Volume
from meddift_lab.synthetic import chest_phantom
from meddift_lab.synthetic.degrade import replace_table
from meddift_lab.synthetic.noise import noise_level, remove_noise

#: `map`, or what does the same in several processes.
Each = Callable[..., Iterable[Any]]
#: Never trained on: validation scans, and the one patient whose crops test matching across fields of view.
HELD_OUT = ("LIDC-0314", "CMB-CRC", "TotalSeg", "native")
#: The window of the model: HU, and what is shown for it.
WINDOW = tuple(torch.tensor(column) for column in zip(*find_spec("builtin").intensity.knots, strict=True))
AIR_HU, TOP_HU = float(WINDOW[0][0]), float(WINDOW[0][-1])


def shown(hu: torch.Tensor) -> torch.Tensor:
    """What the network is shown for HU: the model's window."""
    return interp(hu, *WINDOW)


@dataclass(frozen=True)
class Scan:
    """A scan at the working spacing.

    Attributes:
        name: File name without suffix.
        hu: (X, Y, Z) float32, RAS axes: HU; MR is mapped to the range of the window, 0 to -1000.
        spacing_mm: Isotropic.
        weight: How often it is drawn, relative to others of its size.
        others: The same anatomy again, on the same grid: without its noise, on another table; or MR of the same
            patient in another contrast.
        modality: What it is.
        classes: By version, `hu` first: centres of its classes of intensity, as shown; found where not given.
    """

    name: str
    hu: torch.Tensor
    spacing_mm: float
    weight: float = 1.0
    others: tuple[torch.Tensor, ...] = ()
    modality: Literal["CT", "MR"] = "CT"
    classes: tuple[torch.Tensor, ...] = ()

    def __post_init__(self) -> None:
        """Find the classes."""
        if not self.classes:
            found = tuple(tissue_classes(shown(version)) for version in (self.hu, *self.others))
            object.__setattr__(self, "classes", found)

    def to(self, device: torch.device) -> Scan:
        """The same, where views are rendered."""
        return replace(self, hu=self.hu.to(device), others=tuple(version.to(device) for version in self.others))


def load_scans(folder: Path, *, spacing_mm: float, each: Each = map) -> list[Scan]:
    """Read every training scan of a folder of CT; `each` may work on several at once."""
    paths = [
        path for path in sorted(folder.glob("*.nii.gz")) if not any(word in path.name for word in HELD_OUT)
    ]  # fmt: skip
    if not paths:
        raise SystemExit(f"no training scans (*.nii.gz) in {folder}")
    return list(each(partial(load_ct, spacing_mm=spacing_mm), paths))


def load_ct(path: Path, *, spacing_mm: float) -> Scan:
    """A scan of CT as it came, without its noise, and without noise on another table."""
    volume = _read(path, spacing_mm)
    # Noise that both views show would be texture to match by: most views start from a scan without it.
    body = body_mask(volume)
    smooth = remove_noise(volume, std_hu=noise_level(volume, body=body))
    versions = [
        torch.from_numpy(np.clip(v.data, -1000, 3000))
        for v in (volume, smooth, replace_table(smooth, gap_mm=4.0, body=body))
    ]
    return Scan(path.name.removesuffix(".nii.gz"), versions[0], spacing_mm, others=(versions[1], versions[2]))


def load_mr(folder: Path, *, spacing_mm: float, each: Each = map) -> list[Scan]:
    """Read MR patients: `PATIENT_CONTRAST.nii.gz`, whose contrasts share world coordinates; one `Scan` a patient."""
    patients: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*_*.nii.gz")):
        patients.setdefault(path.name.rsplit("_", 1)[0], []).append(path)
    if not patients:
        raise SystemExit(f"no MR scans (PATIENT_CONTRAST.nii.gz) in {folder}")
    return list(each(partial(load_patient, spacing_mm=spacing_mm), patients, patients.values()))


def load_patient(name: str, paths: list[Path], *, spacing_mm: float) -> Scan:
    """One patient: the first contrast gives the grid; others are read on it, and are dark where they do not reach."""
    # T1 first: it has the largest field of view where they differ.
    paths = sorted(paths, key=lambda path: ("_T1" not in path.name, path.name))
    volumes = [_read(path, spacing_mm) for path in paths]
    versions = []
    for volume in volumes:
        data = map_mr(volume.data)
        if not volume.grid.same_as(volumes[0].grid):
            places = volumes[0].grid.voxel_centers().reshape(-1, 3)
            read = Volume(data, volume.grid).at(places)
            read[~volume.grid.contains(places)] = AIR_HU
            data = read.reshape(volumes[0].grid.shape).astype(np.float32)
        versions.append(torch.from_numpy(np.ascontiguousarray(data)))
    return Scan(name, versions[0], spacing_mm, others=tuple(versions[1:]), modality="MR")


def map_mr(data: np.ndarray) -> np.ndarray:
    """(X, Y, Z) float32: the range that the package finds in a scan without units, spread over that of the window."""
    low, high = robust_range(data.astype(np.float64))
    return (AIR_HU + (TOP_HU - AIR_HU) * np.clip((data - low) / (high - low), 0, 1)).astype(np.float32)


def _read(path: Path, spacing_mm: float) -> Volume:
    """A scan as the package sees it: RAS axes, at the working spacing."""
    image = nibabel.load(path)
    volume = Volume(np.asarray(image.dataobj, dtype=np.float32), Grid(image.shape, image.affine)).reoriented("RAS")
    return volume.resampled_along_axes(volume.grid.respaced(spacing_mm))


def draw_phantoms(
    count: int, *, spacing_mm: float, weight: float = 1.0, first_seed: int = 0, each: Each = map
) -> list[Scan]:
    """Draw chests, each from a seed of its own; about 3 s each at 2 mm.

    Args:
        count: How many.
        spacing_mm: Voxel size.
        weight: How often one is drawn, relative to a scan of its size.
        first_seed: Of the first one. Evaluation draws its phantoms from other seeds.
        each: `map`, or one that works on several at once.
    """
    return list(
        each(partial(draw_phantom, spacing_mm=spacing_mm, weight=weight), range(first_seed, first_seed + count))
    )


def draw_phantom(seed: int, *, spacing_mm: float, weight: float) -> Scan:
    """A drawn chest."""
    # Views get noise of their own; a few HU here keep organs from being perfectly even.
    drawn = chest_phantom(seed, spacing_mm=spacing_mm, lesions=seed % 7, noise_std_hu=4.0, table=seed % 2 == 0)
    hu = np.clip(drawn.volume.data.astype(np.float32), -1000, 3000)
    return Scan(f"phantom-{seed}", torch.from_numpy(hu), spacing_mm, weight)
