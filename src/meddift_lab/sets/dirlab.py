"""DIR-Lab's raw files: ten 4DCT and ten COPDgene pairs with 300 landmarks each.

Images are headerless little-endian int16, x running fastest, stored as HU + 1024. Shapes and voxel sizes stand on the
download pages only, so they are tables here. Landmarks are whole voxels counted from 1, x y z, row i with row i.
Castillo et al. 2009, doi:10.1088/0031-9155/54/7/001; Castillo et al. 2013, doi:10.1088/0031-9155/58/9/2861.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from meddift.errors import ImageError, MissingFileError, OptionsError
from meddift.geometry import Grid
from meddift.points import Points
from meddift.volume import Volume
from meddift_lab.running.case import Case, CaseData, PointSet
from meddift_lab.sets.learn2reg import _origin


@dataclass(frozen=True)
class _Collection:
    """One of the two collections.

    Attributes:
        name: Name of the data set.
        folder: Pattern of the folder of a case, in which the files are searched.
        fixed: Patterns of the fixed image and of its points.
        moving: Patterns of the moving image and of its points.
        shapes: Case number -> number of voxels along x, y, z.
        spacings: Case number -> voxel size along x, y, z, mm.
    """

    name: str
    folder: str
    fixed: tuple[str, str]
    moving: tuple[str, str]
    shapes: Mapping[int, tuple[int, int, int]]
    spacings: Mapping[int, tuple[float, float, float]]


_SLICES_4DCT = (94, 112, 104, 99, 106, 128, 136, 128, 128, 120)
_PIXELS_4DCT = (0.97, 1.16, 1.15, 1.13, 1.10, 0.97, 0.97, 0.97, 0.97, 0.97)
_SLICES_COPD = (121, 102, 126, 126, 131, 119, 112, 115, 116, 135)
_PIXELS_COPD = (0.625, 0.645, 0.652, 0.590, 0.647, 0.633, 0.625, 0.586, 0.664, 0.742)

#: The inhale scan is fixed in 4DCT (T00) and in COPDgene (iBH), as in most papers.
COLLECTIONS: Mapping[str, _Collection] = {
    "dirlab-4dct": _Collection(
        name="dirlab-4dct",
        folder=r"case{n}(pack|deploy)",
        fixed=(r"case{n}_t00(_s|-ssm)?\.img", r"case{n}_(dirlab)?300_t00_xyz\.txt"),
        moving=(r"case{n}_t50(_s|-ssm)?\.img", r"case{n}_(dirlab)?300_t50_xyz\.txt"),
        shapes={i + 1: (256, 256, n) if i < 5 else (512, 512, n) for i, n in enumerate(_SLICES_4DCT)},
        spacings={i + 1: (s, s, 2.5) for i, s in enumerate(_PIXELS_4DCT)},
    ),
    "dirlab-copd": _Collection(
        name="dirlab-copd",
        folder=r"copd{n}",
        fixed=(r"copd{n}_ibhct\.img", r"copd{n}_300_ibh_xyz_r1\.txt"),
        moving=(r"copd{n}_ebhct\.img", r"copd{n}_300_ebh_xyz_r1\.txt"),
        shapes={i + 1: (512, 512, n) for i, n in enumerate(_SLICES_COPD)},
        spacings={i + 1: (s, s, 2.5) for i, s in enumerate(_PIXELS_COPD)},
    ),
}


def dirlab_cases(collection: str, folder: Path, *, orientation: str = "LPS") -> list[Case]:
    """The cases of a collection that are found below a folder.

    Args:
        collection: "dirlab-4dct" or "dirlab-copd".
        folder: Folder of the unpacked archives; subfolders are searched.
        orientation: Directions of the stored axes, such as "LPS". The files do not contain it. Errors in mm do not
            depend on it, but methods that rely on anatomy do, so check one case in a viewer.

    Returns:
        One case for each pair that was found.

    Raises:
        MissingFileError: if there is no case, or a file of a case is missing.
        OptionsError: if the collection is unknown.
    """
    if collection not in COLLECTIONS:
        raise OptionsError(f"DIR-Lab has the collections {', '.join(COLLECTIONS)}; got {collection!r}")
    kind = COLLECTIONS[collection]
    cases = []
    for number in kind.shapes:
        pattern = re.compile(kind.folder.format(n=number), re.IGNORECASE)
        roots = sorted(path for path in folder.rglob("*") if path.is_dir() and pattern.fullmatch(path.name))
        if roots:
            cases.append(_case(kind, number, roots[0], orientation))
    if not cases:
        raise MissingFileError(f"{folder} holds no case of {collection}, such as {kind.folder.format(n=1)}")
    return cases


def read_raw(
    path: Path, shape: tuple[int, int, int], spacing: tuple[float, float, float], *, orientation: str = "LPS"
) -> Volume:
    """Read a raw image as a Volume in HU; voxel (0, 0, 0) lies at the world origin.

    Padding and isolated invalid values are clipped to the range of CT, -1024 to 3071 HU.

    Args:
        path: The .img file.
        shape: Number of voxels along x, y, z.
        spacing: Voxel size along x, y, z, mm.
        orientation: Directions of the x, y and z axes, such as "LPS".

    Returns:
        (X, Y, Z) Volume in HU.

    Raises:
        ImageError: if the size of the file does not fit the shape.
    """
    data = np.fromfile(path, dtype="<i2")
    if data.size != np.prod(shape):
        raise ImageError(f"{path} holds {data.size} voxels of 16 bits, {shape} would be {int(np.prod(shape))}")
    hounsfield = np.clip(data.reshape(shape[::-1]).T.astype(np.int32) - 1024, -1024, 3071).astype(np.int16)
    upright = Grid(shape, np.diag([*spacing, 1.0]))
    # The grid with the given axis directions: the voxels stay in their order, only the axes are renamed.
    axes, flips = Grid(shape, np.eye(4)).reoriented(orientation)[1:]
    if axes != (0, 1, 2):
        raise ImageError(f"the axes of DIR-Lab are left-right, back-front, feet-head; not {orientation!r}")
    affine = upright.affine * np.where([*flips, False], -1.0, 1.0)
    return Volume(np.ascontiguousarray(hounsfield), Grid(shape, affine))


def _case(kind: _Collection, number: int, root: Path, orientation: str) -> Case:
    """One case; its files are searched now and read when the case is loaded."""
    files = [_find(root, pattern.format(n=number)) for pattern in (*kind.fixed, *kind.moving)]

    def load() -> CaseData:
        from meddift.io import read_points

        scans, points = [], []
        for image, landmarks in ((files[0], files[1]), (files[2], files[3])):
            scan = read_raw(image, kind.shapes[number], kind.spacings[number], orientation=orientation)
            scans.append(scan)
            points.append(read_points(landmarks, space="voxel1", grid=scan.grid))
        known = PointSet("landmarks", points[0], Points(points[1].positions, points[0].labels))
        return CaseData(scans[0], scans[1], (known,))

    return Case(f"{kind.name}-{number:02d}", kind.name, load, {"orientation": orientation, **_origin(files)})


def _find(root: Path, pattern: str) -> Path:
    """The first file below a folder whose name matches, ignoring upper and lower case."""
    wanted = re.compile(pattern, re.IGNORECASE)
    found = sorted(path for path in root.rglob("*") if path.is_file() and wanted.fullmatch(path.name))
    if not found:
        raise MissingFileError(f"{root} holds no file named like {pattern}")
    return found[0]
