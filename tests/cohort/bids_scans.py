"""A BIDS data set of small textured scans with lesions, in which every patient moves by whole voxels."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

SIZE, SPACING = 32, 3.0
#: Voxels from one session to the next.
STEP = np.array([1, -1, 2])
#: The engine that needs no network.
HAND_MADE = {"levels": ["mind"], "prior": "identity", "search_radius_mm": 15.0, "device": "cpu"}
#: Lesion -> centre in voxels of the first session, and its radius in mm.
LESIONS = {1: ((10, 18, 9), 7.0), 2: ((20, 14, 11), 9.0)}


def affine() -> np.ndarray:
    result = np.diag([SPACING, SPACING, SPACING, 1.0])
    result[:3, 3] = [-48.0, -40.0, 100.0]
    return result


def tissue(seed: int) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(SIZE,) * 3), 1.6, mode="wrap")
    return np.clip(-200 + 350 * noise / noise.std(), -900, 900).astype(np.int16)


def write(path: Path, data: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(data, affine())
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    nibabel.save(image, path)
    return path


def mask(step: int) -> np.ndarray:
    data = np.zeros((SIZE,) * 3, np.uint8)
    places = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"), -1)
    for number, (center, radius) in LESIONS.items():
        data[np.linalg.norm((places - np.asarray(center) - step * STEP) * SPACING, axis=-1) <= radius] = number
    return data


def bids(root: Path, *, patients: int = 2, sessions: int = 2) -> Path:
    """Sessions are named against their order in time: the table of sessions knows it."""
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "drawn", "BIDSVersion": "1.10.0"}))
    for patient in range(1, patients + 1):
        name = f"sub-{patient:02d}"
        rows = ["session_id\tacq_time"]
        for k in range(sessions):
            session = f"ses-{sessions - k:02d}"
            rows.append(f"{session}\t2024-0{k + 1}-15T10:00:00")
            stem = root / name / session / "ct" / f"{name}_{session}"
            write(stem.with_name(f"{stem.name}_ct.nii.gz"), np.roll(tissue(patient), k * STEP, (0, 1, 2)))
            marked = root / "derivatives" / "reader" / name / session / "ct"
            write(marked / f"{name}_{session}_label-lesion_mask.nii.gz", mask(k))
        (root / name / f"{name}_sessions.tsv").write_text("\n".join(rows) + "\n")
    return root


def points(path: Path) -> Path:
    """Two points of the first scan, and where they are after one step, beside it."""
    first = np.array([[10, 18, 9], [20, 14, 11]]) * SPACING + affine()[:3, 3]
    for name, places in (("points.csv", first), ("truth.csv", first + STEP * SPACING)):
        lines = ["# meddift points; version=1; space=RAS; unit=mm", "label,x,y,z"]
        lines += [f"p{i}," + ",".join(f"{v:.3f}" for v in row) for i, row in enumerate(places)]
        (path / name).write_text("\n".join(lines) + "\n")
    return path / "points.csv"
