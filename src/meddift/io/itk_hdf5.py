"""Transform files of ITK in HDF5: `.h5` and `.hdf5`, as ITK, 3D Slicer, ANTs and uniGradICON write them.

/TransformGroup/N/TransformType, TransformParameters and TransformFixedParameters (ITK's HDF5TransformIO); up to
ITK 4.7 the last two were spelt "Tranform...".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddift.errors import TransformError
from meddift.io.compressed import AGAIN
from meddift.io.hdf5 import Frame, Tree, members, numbers, text, write_hdf5
from meddift.io.itk_records import MOST_RECORDS, Record, require_some

_GROUP = "TransformGroup"


def read_hdf5_records(path: Path) -> list[Record]:
    """Read the transforms of an HDF5 file.

    Args:
        path: A file that exists.

    Raises:
        TransformError: if it is cut off, or something else stands in it.
    """
    with path.open("rb") as stream:
        frame = Frame(stream, path)
        root = members(frame, frame.root)
        if _GROUP not in root:
            held = ", ".join(repr(name[:40]) for name in sorted(root)[:5])
            raise TransformError(f"{path} is an HDF5 file without a transform of ITK (no {_GROUP}); it holds {held}")
        group = members(frame, root[_GROUP])
        if sorted(group) != sorted(str(i) for i in range(len(group))) or len(group) > MOST_RECORDS:
            held = ", ".join(repr(name[:40]) for name in sorted(group)[:5])
            raise TransformError(f"{path} does not number its transforms from 0 on: it holds {held}. {AGAIN}")
        found = [_record(frame, group[str(i)]) for i in range(len(group))]
    require_some(found, path)
    return found


def write_hdf5_records(records: list[Record], path: Path) -> None:
    """Write transforms as ITK's HDF5TransformIO does; not atomic by itself.

    Raises:
        OSError: if the operating system refuses.
    """
    groups: dict[str, Tree] = {}
    for number, record in enumerate(records):
        group: dict[str, Tree | str | NDArray[np.float64]] = {"TransformType": record.name}
        if not record.is_composite:
            group["TransformFixedParameters"] = record.fixed.astype(np.float64)
            group["TransformParameters"] = record.parameters.astype(np.float64, copy=False)
        groups[str(number)] = group
    write_hdf5({"ITKVersion": "5.4", "HDFVersion": "HDF5 library version: 1.12", _GROUP: groups}, path)


def _record(frame: Frame, address: int) -> Record:
    parts = members(frame, address)
    if "TransformType" not in parts:
        raise TransformError(f"{frame.path} holds a transform without a type. {AGAIN}")
    name = text(frame, parts["TransformType"])
    if Record(name).is_composite:
        return Record(name)
    return Record(name, *(_numbers(frame, parts, name, which) for which in ("Parameters", "FixedParameters")))


def _numbers(frame: Frame, parts: dict[str, int], name: str, which: str) -> NDArray[np.floating]:
    for spelling in (f"Transform{which}", f"Tranform{which}"):
        if spelling in parts:
            return numbers(frame, parts[spelling])
    raise TransformError(f"{frame.path} is damaged: the transform {name[:80]!r} has no {which}. {AGAIN}")
