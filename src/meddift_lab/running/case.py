"""`Case`: two scans of one patient and points with known counterparts, independent of the layout of the data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import ImageError, MissingFileError, PointsError
from meddift.geometry import Grid
from meddift.points import Points
from meddift.system.atomic import write_json
from meddift.volume import Volume

#: Kinds of points, which are reported separately and never pooled.
KINDS: Mapping[str, str] = {
    "landmarks": "placed by people",
    "keypoints": "placed by a program (Learn2Reg: by corrField), so they reward agreement with that program",
    "exact": "known exactly, since the moving scan was made from the fixed one",
    "vessels": "known exactly, on vessels and airways",
    "body": "known exactly, anywhere in the body",
}


@dataclass(frozen=True, eq=False)
class PointSet:
    """Points of one kind on both scans.

    Attributes:
        kind: One of `KINDS`.
        fixed: Points on the fixed scan, world RAS mm.
        moving: Their true positions on the moving scan, with the same labels, world RAS mm.
        truth: How the true positions were determined, worded to complete "points of this kind are ..."; empty = the
            usual way for this kind.

    Raises:
        PointsError: if the numbers of points differ or are 0, or a position is missing.
    """

    kind: str
    fixed: Points
    moving: Points
    truth: str = ""

    def __post_init__(self) -> None:
        """Check kind, numbers and positions; see `Raises` of the class."""
        if self.kind not in KINDS:
            raise PointsError(f"points are of kind {', '.join(KINDS)}; got {self.kind!r}")
        if len(self.fixed) != len(self.moving):
            raise PointsError(f"{len(self.fixed)} points on the fixed scan, but {len(self.moving)} on the moving scan")
        if len(self.fixed) == 0:
            raise PointsError(f"there are no {self.kind}")
        for points in (self.fixed, self.moving):
            if points.missing.any():
                raise PointsError(f"point {points.labels[int(points.missing.argmax())]!r} has no position")


@dataclass(frozen=True, eq=False)
class CaseData:
    """Content of a case. Scans and masks are volumes, or paths of files that `read_volume` reads.

    Attributes:
        fixed: The scan in which the points are given.
        moving: The scan in which their counterparts are to be found.
        sets: Points, one set for each kind.
        mask: Mask on the fixed scan in which the regularity of fields is measured.
        labels: Label maps of the fixed and of the moving scan, for overlap.
    """

    fixed: Volume | Path
    moving: Volume | Path
    sets: tuple[PointSet, ...]
    mask: Volume | Path | None = None
    labels: tuple[Volume | Path, Volume | Path] | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """A case that has not been read yet.

    Attributes:
        name: Name for file names, unique in its data set.
        data_set: Name of the data set.
        load: Reads or makes the content.
        origin: Description of the sources, ready for JSON; a stored case is made again if it changes.
    """

    name: str
    data_set: str
    load: Callable[[], CaseData]
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class StoredCase:
    """A case stored as files, which the processes of the methods read.

    Attributes:
        name: As in `Case`.
        data_set: As in `Case`.
        fixed: Path of the fixed scan.
        moving: Path of the moving scan.
        grids: Grids of the fixed and of the moving scan.
        sets: Points, one set for each kind.
        mask: Path of the mask on the fixed scan, or None.
        labels: Paths of the label maps of both scans, or None.
        digest: sha256 of scans, points, mask and labels, on which results depend.
    """

    name: str
    data_set: str
    fixed: Path
    moving: Path
    grids: tuple[Grid, Grid]
    sets: tuple[PointSet, ...]
    mask: Path | None
    labels: tuple[Path, Path] | None
    digest: str

    @property
    def asked(self) -> Points:
        """The fixed points of all sets, concatenated, for which a method is to find counterparts."""
        positions = np.concatenate([points.fixed.positions for points in self.sets])
        return Points(positions, tuple(f"{s.kind} {label}" for s in self.sets for label in s.fixed.labels))

    def split(self, positions: NDArray[np.float64]) -> list[Points]:
        """Split positions found for `asked`, (N, 3) world RAS mm, into one `Points` for each set."""
        ends = np.cumsum([len(points.fixed) for points in self.sets])
        parts = np.split(positions, ends[:-1])
        return [Points(part, s.fixed.labels) for part, s in zip(parts, self.sets, strict=True)]


def store_case(case: Case, folder: Path) -> StoredCase:
    """Store a case as files; a case already stored from the same origin is reused.

    Args:
        case: The case.
        folder: Folder for this case only; created if it does not exist.

    Returns:
        The stored case.

    Raises:
        MeddiftError: if it cannot be read or made, or its points do not lie inside its scans.
    """
    path = folder / "case.json"
    origin = json.loads(json.dumps(dict(case.origin)))
    kept = _kept(folder, origin)
    if kept is not None:
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    data = case.load()
    digest = hashlib.sha256()
    fixed, fixed_grid = _stored(data.fixed, "fixed", folder, digest)
    moving, moving_grid = _stored(data.moving, "moving", folder, digest)
    mask = None if data.mask is None else _stored(data.mask, "mask", folder, digest, scan=False)[0]
    labels = None
    if data.labels is not None:
        pair = zip(data.labels, ("fixed-labels", "moving-labels"), strict=True)
        labels = [_stored(item, name, folder, digest, scan=False)[0] for item, name in pair]
    for points in data.sets:
        _check_inside(points, fixed_grid, moving_grid, case.name)
    sets = [_points_content(points) for points in data.sets]
    digest.update(json.dumps(sets, sort_keys=True).encode())
    content = {
        "layout": _LAYOUT,
        "name": case.name,
        "data_set": case.data_set,
        "origin": origin,
        "fixed": {"path": fixed, **_grid_content(fixed_grid)},
        "moving": {"path": moving, **_grid_content(moving_grid)},
        "mask": mask,
        "labels": labels,
        "points_ras_mm": sets,
        "digest": digest.hexdigest(),
    }
    write_json(content, path)
    return _restored(content, folder)


def restore_case(folder: Path) -> StoredCase:
    """Read a case that `store_case` wrote.

    Args:
        folder: Folder of the case.

    Raises:
        MissingFileError: if it does not exist or is damaged.
    """
    kept = _kept(folder, None)
    if kept is None:
        raise MissingFileError(
            f"{folder / 'case.json'} is missing or damaged; the same evaluation, run again, makes it anew"
        )
    return kept


def _kept(folder: Path, origin: Any) -> StoredCase | None:
    """The case in a folder; None if there is none, it is damaged, or it was made from another origin."""
    try:
        content = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        if content["layout"] != _LAYOUT or (origin is not None and content["origin"] != origin):
            return None
        case = _restored(content, folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
    return case if case.fixed.exists() and case.moving.exists() else None


#: Version of the layout of case.json, incremented with every change.
_LAYOUT = 2


def _stored(
    item: Volume | Path, name: str, folder: Path, digest: hashlib._Hash, *, scan: bool = True
) -> tuple[str, Grid]:
    """Path of a scan, relative if it was written to the folder, and its grid; adds the content to the digest."""
    from meddift.io import read_volume, write_volume

    if isinstance(item, Path):
        volume = read_volume(item, check=scan)
        digest.update(volume.digest().encode())
        return str(item.resolve()), volume.grid
    write_volume(item, folder / f"{name}.nii.gz")
    digest.update(item.digest().encode())
    return f"{name}.nii.gz", item.grid


def _check_inside(points: PointSet, fixed: Grid, moving: Grid, name: str) -> None:
    """Reject points that lie mostly outside their scan: their frame or index base is probably wrong."""
    for side, grid, places in (("fixed", fixed, points.fixed), ("moving", moving, points.moving)):
        outside = int((~grid.contains(places.positions)).sum())
        if outside > 0.2 * len(places):
            raise ImageError(
                f"case {name}: {outside} of {len(places)} {points.kind} lie outside the {side} scan; "
                "are they in another frame (LPS, RAS, voxels), or do they belong to another scan?"
            )


def _points_content(points: PointSet) -> dict[str, Any]:
    return {
        "kind": points.kind,
        "truth": points.truth,
        "labels": list(points.fixed.labels),
        "fixed": points.fixed.positions.tolist(),
        "moving": points.moving.positions.tolist(),
    }


def _grid_content(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "affine_ras_mm": grid.affine.tolist()}


def _restored(content: Mapping[str, Any], folder: Path) -> StoredCase:
    """The case that case.json describes."""

    def grid(side: str) -> Grid:
        return Grid(tuple(content[side]["shape"]), np.asarray(content[side]["affine_ras_mm"]))

    sets = []
    for item in content["points_ras_mm"]:
        fixed, moving = (Points(np.asarray(item[side]), tuple(item["labels"])) for side in ("fixed", "moving"))
        sets.append(PointSet(item["kind"], fixed, moving, item["truth"]))
    labels = content["labels"]
    return StoredCase(
        name=content["name"],
        data_set=content["data_set"],
        fixed=folder / content["fixed"]["path"],
        moving=folder / content["moving"]["path"],
        grids=(grid("fixed"), grid("moving")),
        sets=tuple(sets),
        mask=None if content["mask"] is None else folder / content["mask"],
        labels=None if labels is None else (folder / labels[0], folder / labels[1]),
        digest=content["digest"],
    )
