"""NRRD (`.nrrd`, `.nhdr`): the header read strictly, the values without any library.

Format: http://teem.sourceforge.net/nrrd/format.html. Read here and not by ITK, because ITK fills in what a header
leaves out (identity directions, origin 0, spacing 1), ignores units, and ends the process on damaged headers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError, ImageError, MeddiftError
from meddift.io.header import ASSUME, REPAIR, ImageHeader, content_problems, geometry_problems, stored_shape
from meddift.io.nrrd_fields import nrrd_fields, nrrd_source
from meddift.io.text_header import (
    MILLIMETRES,
    axis_lengths,
    number,
    shortened,
    whole_number,
)

#: Spaces that name patient axes, and the signs that turn them into RAS.
_SPACES = {
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1), "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1), "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
}  # fmt: skip
_SPACE_NAMES = {
    **_SPACES,
    **{name + ("t" if len(name) == 3 else "-time"): signs for name, signs in _SPACES.items()},
}

_COLORS = {"rgb-color", "rgba-color", "hsv-color", "xyz-color", "3-color", "4-color"}
_VECTORS = {
    "vector",
    "covariant-vector",
    "normal",
    "2-vector",
    "3-vector",
    "4-vector",
    "3-normal",
    "3-gradient",
    "point",
}
_AXES_OF_SPACE = {"domain", "space"}


@dataclass(frozen=True, eq=False)
class _Axes:
    """Which stored axes lie in space, and what the others are."""

    spatial: tuple[int, ...]
    others: tuple[int, ...]
    kinds: tuple[str, ...]


def read_nrrd_header(path: Path, *, assume_geometry: bool) -> ImageHeader:
    """Read and judge the header of an NRRD file.

    Args:
        path: A file that exists.
        assume_geometry: Accept a file that states no directions or no position, as ITK reads it.

    Returns:
        The header, with every problem found. An axis of length 1 that is no axis of space is left out, wherever it
        stands. `source` is a `StoredArray`; `read_nrrd_voxels` reads it.

    Raises:
        ImageError: if the file is no NRRD file, or its header is damaged.
    """
    fields, keys, start = nrrd_fields(path)
    count = whole_number(fields.get("dimension", ""))
    if count is None or not 1 <= count <= 16:
        raise ImageError(
            f"the header of {path} gives no dimension from 1 to 16: {fields.get('dimension', '')[:80]!r}."
        )
    lengths = axis_lengths(fields.get("sizes", "").split(), count, path)
    source = nrrd_source(fields, lengths, path, start)
    directions, origin = _vectors(fields, count, path)
    axes = _axes(fields, lengths, directions)
    real = tuple(axis for axis in axes.others if lengths[axis] > 1)
    kind = _kind(axes, real)
    shape = stored_shape(lengths[axis] for axis in (*axes.spatial, *(() if kind != "scalar" else real)))
    problems = content_problems(shape, kind, path) or _consistency(directions, path)
    affine = None
    if len(axes.spatial) == 3 and not any(isinstance(problem, GeometryError) for problem in problems):
        affine, found = _geometry(fields, directions, origin, axes, path, assume_geometry)
        problems += found
        problems += geometry_problems(tuple(lengths[axis] for axis in axes.spatial), affine, path)
        problems += _frame_of_vectors(fields, path) if kind == "vector" else []
    problems += source.problems()
    told = {**keys, **fields}
    details: dict[str, Any] = {key: told[key] for key in ("space", "content", "modality") if key in told}
    channels = int(np.prod([lengths[axis] for axis in real])) if kind != "scalar" else 1
    # The order in which `read_nrrd_voxels` puts the axes: channels first.
    order = (*real, *axes.spatial) if kind != "scalar" else (*axes.spatial, *real)
    return ImageHeader(
        path,
        "NRRD",
        shape,
        source.dtype.newbyteorder("="),
        affine,
        kind,
        tuple(problems),
        details,
        channels=channels,
        files=source.all_files,
        source=(source, order),
    )


def read_nrrd_voxels(header: ImageHeader) -> NDArray[np.generic]:
    """Read the values that belong to a header without problems.

    Returns:
        (X, Y, Z) array of the stored type, or (C, X, Y, Z) where a voxel holds several values.

    Raises:
        ImageError: if the file is cut off or damaged.
    """
    source, order = header.source
    data = source.read()
    dropped = tuple(axis for axis in range(data.ndim) if axis not in order)
    rest = [axis for axis in range(data.ndim) if axis not in dropped]
    return np.asarray(np.squeeze(data, dropped).transpose([rest.index(axis) for axis in order]))


def _vectors(
    fields: dict[str, str], count: int, path: Path
) -> tuple[list[NDArray[np.float64] | None] | None, NDArray[np.float64] | None]:
    """Space directions (None for axes outside space) and space origin, as far as they are stated."""
    directions: list[NDArray[np.float64] | None] | None = None
    if "space directions" in fields:
        words = re.findall(r"none|\([^()]*\)", fields["space directions"])
        rest = re.sub(r"none|\([^()]*\)", "", fields["space directions"])
        if len(words) != count or rest.strip():
            raise ImageError(
                f"the header of {path} states {len(words)} space directions for {count} axes: "
                f"{shortened(fields['space directions'])!r}."
            )
        directions = [None if word == "none" else _vector(word, path) for word in words]
        # teem itself reads a vector of nan as "none".
        directions = [None if vector is None or np.isnan(vector).all() else vector for vector in directions]
    origin = _vector(fields["space origin"], path) if "space origin" in fields else None
    return directions, origin


def _vector(text: str, path: Path) -> NDArray[np.float64]:
    """(3,) vector written as (x,y,z); the fourth component of a space with time is left out."""
    words = text.strip().removeprefix("(").removesuffix(")").split(",")
    if not 2 <= len(words) <= 4:
        raise ImageError(f"the header of {path} holds {shortened(text)!r} where three numbers in brackets are needed.")
    return np.array([number(word.strip()) for word in words[:3]])


def _axes(
    fields: dict[str, str], lengths: tuple[int, ...], directions: list[NDArray[np.float64] | None] | None
) -> _Axes:
    """Tell axes of space from others: by their vectors, else by their kinds, else the first three are of space."""
    kinds = fields.get("kinds", "").lower().split()
    kinds = kinds if len(kinds) == len(lengths) else ["???"] * len(lengths)
    numbers = range(len(lengths))
    if directions is not None:
        spatial = [axis for axis in numbers if directions[axis] is not None]
    elif any(kind in _AXES_OF_SPACE for kind in kinds):
        spatial = [axis for axis in numbers if kinds[axis] in _AXES_OF_SPACE]
    else:
        spatial = [axis for axis in numbers if kinds[axis] not in _COLORS | _VECTORS | {"list", "time", "complex"}]
    spatial = spatial[:3]
    return _Axes(tuple(spatial), tuple(axis for axis in numbers if axis not in spatial), tuple(kinds))


def _kind(axes: _Axes, real: tuple[int, ...]) -> str:
    """What one voxel holds."""
    kinds = {axes.kinds[axis] for axis in real}
    if kinds & _COLORS:
        return "color"
    if "complex" in kinds:
        return "complex"
    if kinds & _VECTORS or any(re.match(r"\dd-|quaternion", kind) for kind in kinds):
        return "vector"
    # ITK calls a nameless first axis outside of space a vector, and so do the fields that it writes.
    return "vector" if real == (0,) and axes.kinds[0] != "list" else "scalar"


def _consistency(directions: list[NDArray[np.float64] | None] | None, path: Path) -> list[MeddiftError]:
    """Vectors that are not of three components."""
    lengths = {len(vector) for vector in directions or [] if vector is not None}
    if lengths - {3}:
        return [GeometryError(f"the space of {path} has {min(lengths)} axes; meddift needs three.")]
    return []


def _frame_of_vectors(fields: dict[str, str], path: Path) -> list[MeddiftError]:
    """What the header says of the frame in which vectors are measured: LPS is what ITK takes them for, whatever it is.

    The columns of the frame are its axes in the space of the header (NRRD format, "measurement frame").
    """
    stated = fields.get("measurement frame")
    if stated is None:
        return []
    columns = [_vector(word, path) for word in re.findall(r"\([^()]*\)", stated)]
    space = np.array(_SPACE_NAMES.get(fields.get("space", "").lower(), (-1, -1, 1)))
    if len(columns) == 3 and all(len(column) == 3 for column in columns):
        lps = np.stack(columns, axis=1) * (space * (-1, -1, 1))[:, None]
        if np.allclose(lps, np.eye(3), atol=1e-6):
            return []
    return [
        GeometryError(
            f"{path} measures its vectors in a frame of its own (measurement frame {shortened(stated)}), which ITK "
            "takes for LPS all the same. Write the vectors again in LPS, without a measurement frame."
        )
    ]


def _geometry(
    fields: dict[str, str],
    directions: list[NDArray[np.float64] | None] | None,
    origin: NDArray[np.float64] | None,
    axes: _Axes,
    path: Path,
    assume_geometry: bool,
) -> tuple[NDArray[np.float64], list[MeddiftError]]:
    """The affine to world RAS mm, and what the header leaves open or says in a way that programs ignore."""
    problems: list[MeddiftError] = []
    space = fields.get("space", "").lower()
    missing = [name for name, value in (("space directions", directions), ("space origin", origin)) if value is None]
    if space and space not in _SPACE_NAMES and not assume_geometry:
        problems.append(
            GeometryError(
                f"{path} gives its geometry in the space {space[:80]!r}, which does not tell patient axes. {ASSUME}"
            )
        )
    elif (not space or missing) and not assume_geometry:
        absent = ", ".join(missing if space else ["space", *missing])
        problems.append(
            GeometryError(f"{path} does not state where it lies in space (no {absent} in its header). {ASSUME}")
        )
    units = {unit.strip().lower() for unit in re.findall(r'"([^"]*)"', fields.get("space units", ""))}
    if units - MILLIMETRES:
        told = ", ".join(shortened(unit) for unit in sorted(units - MILLIMETRES))
        problems.append(
            GeometryError(f"{path} states its lengths in {told}, which programs ignore. Write the file again in mm.")
        )
    lps = np.eye(4)
    spacings = fields.get("spacings", "").split()
    for column, axis in enumerate(axes.spatial):
        direction = None if directions is None else directions[axis]
        if direction is not None and len(direction) != 3:
            problems.append(
                GeometryError(
                    f"a space direction in the header of {path} has {len(direction)} numbers, not 3. {REPAIR}"
                )
            )
        elif direction is not None:
            lps[:3, column] = direction
        elif len(spacings) == len(axes.kinds) and spacings[axis].lower() != "nan":
            lps[column, column] = number(spacings[axis])
    if origin is not None and len(origin) == 3:
        lps[:3, 3] = origin
    lps[:3] *= np.array(_SPACE_NAMES.get(space, (-1, -1, 1)))[:, None]
    return lps, problems
