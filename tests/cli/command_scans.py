"""Small scans on disk, written with nibabel, for the tests of the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

SPACING = 3.0
SIZE = 40
#: The moving scan shows what the fixed one shows, this much farther along R, A, S, mm.
SHIFT = np.array([6.0, -3.0, 9.0])


def textured(shape: tuple[int, int, int] = (SIZE, SIZE, SIZE), *, seed: int = 0) -> np.ndarray:
    """Smooth random tissue, HU between about -900 and 400."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.6, mode="wrap")
    return np.clip(-200 + 350 * noise / noise.std(), -900, 900).astype(np.int16)


def affine(spacing: float = SPACING) -> np.ndarray:
    result = np.diag([spacing, spacing, spacing, 1.0])
    result[:3, 3] = [-58.5, -40, 100]
    return result


def write_nifti(path: Path, data: np.ndarray, matrix: np.ndarray | None = None) -> Path:
    image = nibabel.Nifti1Image(data, affine() if matrix is None else matrix)
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    nibabel.save(image, path)
    return path


def write_csv(path: Path, positions: Any, space: str = "RAS") -> Path:
    lines = [f"# meddift points; version=1; space={space}; unit=mm", "label,x,y,z"]
    lines += [f"p{i + 1}," + ",".join(f"{v:.4f}" for v in row) for i, row in enumerate(np.asarray(positions))]
    path.write_text("\n".join(lines) + "\n")
    return path


@dataclass(frozen=True)
class Case:
    """Two scans, points and where they truly are."""

    folder: Path
    fixed: Path
    moving: Path
    points: Path
    truth: Path
    positions: np.ndarray

    def arguments(self, *more: str, **changed: Path | str) -> list[str]:
        """A `match` that needs no network."""
        paths = {"fixed": self.fixed, "moving": self.moving, "points": self.points, "out": self.out, **changed}
        base = ["match", str(paths["fixed"]), str(paths["moving"]), "--points", str(paths["points"])]
        base += ["--out", str(paths["out"])] if paths["out"] else []
        return [*base, "--levels", "mind", "--prior", "identity", "--search-radius", "15", "--no-store", *more]

    @property
    def out(self) -> Path:
        return self.folder / "results" / "found.csv"

    def results(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "results").iterdir())


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)
