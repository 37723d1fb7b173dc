"""Data sets in the layout of the Learn2Reg challenge (LungCT, NLST and others), and the TRE as it computes it.

`NAME_dataset.json` lists pairs of images; points, masks and labels lie beside the images in folders of the same
split (`imagesTr` -> `keypointsTr`, `landmarksTr`, `masksTr`, `labelsTr`) under the same name. Points are CSV without
header, `x,y,z` in voxels counted from 0 of the array as nibabel loads it; row i belongs to row i. `_0000` is fixed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift.errors import MissingFileError, OptionsError, PointsError
from meddift.points import Points
from meddift_lab.running.case import Case, CaseData, PointSet

#: Names of the lists of pairs in a data set, in order of preference.
SPLITS = ("registration_val", "training_paired_images", "registration_test", "test_paired_images")


def learn2reg_cases(folder: Path, *, split: str | None = None) -> list[Case]:
    """The cases of a data set for which points exist.

    Args:
        folder: Folder with one `*_dataset.json`.
        split: Name of the list of pairs; None = the first of `SPLITS` that exists.

    Returns:
        One case for each pair with points, not loaded yet.

    Raises:
        MissingFileError: if there is no `*_dataset.json`.
        OptionsError: if there are several, the split is not in it, or no pair of it has points.
    """
    found = sorted(folder.glob("*_dataset.json"))
    if not found:
        raise MissingFileError(f"{folder} holds no *_dataset.json: it is not a data set of Learn2Reg")
    if len(found) > 1:
        raise OptionsError(f"{folder} holds several data sets: {', '.join(path.name for path in found)}")
    content = _read_json(found[0])
    chosen = split or next((name for name in SPLITS if content.get(name)), None)
    if chosen is None or not isinstance(content.get(chosen), list) or not content[chosen]:
        lists = [name for name in SPLITS if content.get(name)]
        raise OptionsError(f"{found[0]} has no pairs {split or ''!r}; it has {', '.join(lists) or 'none at all'}")
    name = str(content.get("name") or found[0].name.removesuffix("_dataset.json"))
    cases = []
    for entry in content[chosen]:
        try:
            images = folder / str(entry["fixed"]), folder / str(entry["moving"])
        except (TypeError, KeyError) as error:
            raise OptionsError(f"{found[0]}: a pair needs fixed and moving, got {entry!r}") from error
        if any(_beside(images, kind) for kind in _POINTS):
            cases.append(_case(name, images))
    if not cases:
        raise OptionsError(f"none of the {len(content[chosen])} pairs {chosen!r} of {found[0]} has points beside it")
    return cases


def challenge_tre(
    displacement: NDArray[np.floating], fixed: ArrayLike, moving: ArrayLike, moving_spacing: ArrayLike
) -> NDArray[np.float64]:
    """TRE as the evaluation of the challenge computes it from a submitted field.

    It is norm((fixed + d(fixed) - moving) * moving_spacing), with d interpolated by cubic splines.

    Args:
        displacement: (X, Y, Z, 3) displacement field in voxels, on the fixed grid.
        fixed: (N, 3) fixed points, voxel indices counted from 0.
        moving: (N, 3) moving points, voxel indices counted from 0.
        moving_spacing: (3,) voxel size of the moving scan, mm.

    Returns:
        (N,) float64, mm.
    """
    from scipy.ndimage import map_coordinates

    start, goal = np.asarray(fixed, dtype=np.float64), np.asarray(moving, dtype=np.float64)
    moved = np.stack([map_coordinates(displacement[..., axis], start.T) for axis in range(3)], axis=1)
    return np.asarray(np.linalg.norm((start + moved - goal) * np.asarray(moving_spacing), axis=1))


#: Kind of points -> name of its folder without the suffix of the split.
_POINTS = {"landmarks": "landmarks", "keypoints": "keypoints"}


def _case(data_set: str, images: tuple[Path, Path]) -> Case:
    """One pair; its files are read when it is loaded."""
    masks, labels = _beside(images, "masks"), _beside(images, "labels")
    points = {kind: files for kind in _POINTS if (files := _beside(images, kind)) is not None}

    def load() -> CaseData:
        from meddift.io import read_points, read_volume

        for path in images:
            if not path.is_file():
                raise MissingFileError(f"there is no image {path}, which the data set names")
        grids = [read_volume(path).grid for path in images]
        sets = []
        for kind, files in points.items():
            read = [read_points(file, space="voxel", grid=grid) for file, grid in zip(files, grids, strict=True)]
            if len(read[0]) != len(read[1]):
                raise PointsError(f"{files[0]} has {len(read[0])} points, {files[1]} has {len(read[1])}")
            sets.append(PointSet(kind, read[0], Points(read[1].positions, read[0].labels)))
        return CaseData(*images, tuple(sets), mask=None if masks is None else masks[0], labels=labels)

    named = [*images, *(file for files in points.values() for file in files), *(masks or ()), *(labels or ())]
    return Case(_stem(images[0]).removesuffix("_0000"), data_set, load, _origin(named))


def _beside(images: tuple[Path, Path], kind: str) -> tuple[Path, Path] | None:
    """The files of another kind that belong to both images; None if one of them is missing."""
    suffix = ".csv" if kind in _POINTS else ".nii.gz"
    files = []
    for image in images:
        folder = image.parent.parent / image.parent.name.replace("images", kind)
        files.append(folder / (_stem(image) + suffix))
    return (files[0], files[1]) if all(file.is_file() for file in files) else None


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _origin(files: list[Path]) -> dict[str, Any]:
    """Names, sizes and modification times of files, by which changes are detected."""
    return {
        str(file.resolve()): [file.stat().st_size, file.stat().st_mtime_ns] if file.is_file() else None
        for file in files
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionsError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise OptionsError(f"{path} does not describe a data set: a JSON object is needed")
    return content
