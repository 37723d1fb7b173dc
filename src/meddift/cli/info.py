"""`meddift info`: describe a scan, a points file, a transform, a model or results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from meddift.cli.failures import say
from meddift.cli.groups import with_groups
from meddift.cli.options import AsJson, ImageReading, PointsSpace
from meddift.errors import ImageError, MissingFileError
from meddift.system.text import one_line

_TRANSFORMS = (".tfm", ".h5", ".hdf5", ".mat")


EXAMPLES = """
meddift info scan.nii.gz
meddift info dicom-folder/ --json
meddift info points.csv --image scan.nii.gz
meddift info moving-to-fixed.h5
meddift info follow-up/
meddift info builtin
"""


@with_groups
def info(
    *,
    what: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE|POINTS|TRANSFORM|MODEL|RESULTS",
            help="A file, a folder of DICOM files or of results, or the name of a model.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
    points_space: PointsSpace = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="Scan on which the points lie."),
    ] = None,
    reading: ImageReading,
) -> None:
    """Describe a scan with its geometry, points, a transform, a model, or results of meddift.

    No network is loaded.
    """
    from meddift.cli.terminal import progress_display, write_json_to_stdout

    path = Path(what)
    kind = _kind(what, path)
    if kind == "model":
        from meddift.cli.models import describe_model, model_lines

        description = describe_model(what)
        lines = model_lines(description)
    elif kind == "image":
        from meddift.io import describe_image

        with progress_display(quiet=as_json) as progress:
            description = describe_image(path, series=reading.series, progress=progress, **reading.geometry())
        lines = _image_lines(description)
    elif kind == "transform":
        from meddift.io.describe_transform import describe_transform

        description = describe_transform(path, **reading.geometry())
        lines = _transform_lines(description)
    elif kind == "stored":
        from meddift.features.describe_stored import describe_stored

        description = describe_stored(path)
        lines = _stored_lines(description)
    elif kind == "results":
        from meddift.cli.info_results import describe_results

        description = describe_results(path)
        lines = [f"{name.replace('_', ' ')}: {_words(value)}" for name, value in description.items()]
    else:
        from meddift.io.points import describe_points

        grid = None if image is None else reading.grid(image)
        description = describe_points(path, space=points_space, grid=grid)
        lines = _points_lines(description)
    if as_json:
        write_json_to_stdout(description)
    else:
        say("\n".join(lines))


def _kind(what: str, path: Path) -> str:
    """Kind of the argument: "model", "image", "transform", "stored", "results" or "points".

    The name decides, and if it does not, the content of the file.

    Raises:
        MissingFileError: if there is no file or model of this name.
    """
    from meddift.io.images import IMAGE_SUFFIXES, require_existing
    from meddift.io.sniff import what_it_is

    name = what.lower()
    if name.endswith(".toml"):
        return "model"
    try:
        require_existing(path)
    except MissingFileError as error:
        from meddift.models import catalogue

        if what in catalogue():
            return "model"
        hint = "" if path.suffix or len(path.parts) > 1 else f" Known models: {', '.join(catalogue())}."
        raise MissingFileError(f"{error}{hint}") from None
    from meddift.cli.info_results import is_results

    if path.is_dir():
        from meddift.features.describe_stored import stored_in

        return "results" if is_results(path) else "stored" if stored_in(path) else "image"
    if name.endswith(IMAGE_SUFFIXES):
        from meddift.io.describe_transform import holds_displacements

        return "transform" if holds_displacements(path) else "image"
    try:
        found = what_it_is(path) or ""
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from error
    if name.endswith(".safetensors") or found.startswith("a safetensors"):
        return "stored"
    if name.endswith(_TRANSFORMS) or found.endswith(" transform"):
        return "transform"
    return "image" if found else "results" if is_results(path) else "points"


def _points_lines(description: dict[str, Any]) -> list[str]:
    """Description of a points file as lines of text."""
    frame = description["frame"] or "not named in the file; give --points-space"
    lines = [
        one_line(str(description["path"])),
        f"format: {description['format']}",
        f"frame: {frame}" + (f", {description['unit']}" if description["unit"] else ""),
        f"points: {description['count']}"
        + (f", {description['missing']} without position" if description["missing"] else ""),
    ]
    labels = description["labels"]
    lines.append("labels: " + ", ".join(map(one_line, labels[:8])) + (", ..." if len(labels) > 8 else ""))
    if description["columns"]:
        lines.append("further columns: " + ", ".join(description["columns"]))
    for key, name in (("bounds", "as stored"), ("bounds_ras_mm", "in world RAS mm")):
        if description[key] is not None:
            low, high = description[key]
            ranges = ", ".join(f"{axis} {a:g} to {b:g}" for axis, a, b in zip("xyz", low, high, strict=True))
            lines.append(f"range {name}: {ranges}")
    if description["outside"] is not None:
        lines.append(f"outside the image: {description['outside']}")
    if description["looks_like_flipped"]:
        lines.append("this looks like LPS taken for RAS or the reverse: with x and y negated, the points lie inside")
    return lines


def _image_lines(description: dict[str, Any]) -> list[str]:
    """Description of a scan as lines of text; entries missing in its header are left out."""
    lines = [one_line(str(description["path"]))]

    def add(name: str, key: str, ending: str = "", between: str = " x ") -> None:
        value = description.get(key)
        if value is not None and value != "":
            numbers = between.join(f"{v:.6g}" for v in value) if isinstance(value, list) else _words(value)
            lines.append(f"{name}: {numbers}{ending}")

    add("format", "format", f", {description['dtype']}" if description.get("dtype") else "")
    add("size", "shape", " voxels")
    add("spacing", "spacing_mm", " mm")
    add("field of view", "extent_mm", " mm")
    letters = description.get("orientation")
    if letters:
        ways = ", ".join(f"the {name} to the {_SIDES[x]}" for name, x in zip(_AXES, letters, strict=True))
        turned = description.get("obliqueness_degrees") or 0.0
        oblique = f"; turned by {turned:.1f} degrees against the body axes" if turned > 0.05 else ""
        lines.append(f"orientation: {letters} (the voxel axes grow: {ways}){oblique}")
    add("center of the first voxel", "origin_ras_mm", " in world RAS mm", ", ")
    add("center of the field of view", "center_ras_mm", " in world RAS mm", ", ")
    for key, value in (description.get("details") or {}).items():
        if isinstance(value, list) and value and isinstance(value[0], str):
            lines += [f"{key.replace('_', ' ')}:", *(f"  {entry}" for entry in value)]
        elif value not in (None, "", [], {}):
            lines.append(f"{key.replace('_', ' ')}: {_words(value)}")
    lines += [f"note: {note}" for note in description.get("notes") or []]
    problems = description.get("problems") or []
    lines += [f"cannot be matched: {problem}" for problem in problems]
    return lines


def _transform_lines(description: dict[str, Any]) -> list[str]:
    """Description of a transform as lines of text."""
    lines = [
        one_line(str(description["path"])),
        f"transform: {description['direction']}",
        f"frame: {description['frame']}",
    ]
    sidecar = description["sidecar"]
    if sidecar is not None:
        lines += [f"{key.replace('_', ' ')}: {_words(value)}" for key, value in _told_by(sidecar)]
    for part in description["parts"]:
        lines.append(f"{part['kind']}:")
        for key, value in part.items():
            if key == "matrix_ras":
                lines += ["  matrix (RAS mm):", *("    " + "  ".join(f"{v:12.6g}" for v in row) for row in value)]
            elif key != "kind":
                lines.append(f"  {key.replace('_', ' ')}: {_words(value)}")
    return lines


def _told_by(sidecar: dict[str, Any]) -> list[tuple[str, Any]]:
    """Main entries of a `.transform.json`, which may be of any version or damaged."""
    found: list[tuple[str, Any]] = []
    for name in ("fixed", "moving"):
        scan = sidecar.get(name)
        if isinstance(scan, dict) and isinstance(scan.get("shape"), list):
            digest = f", sha256 {str(scan['sha256'])[:12]}..." if "sha256" in scan else ""
            found.append((f"{name} scan", f"{' x '.join(map(str, scan['shape'][:3]))} voxels{digest}"))
    slicer = sidecar.get("in_3d_slicer")
    if isinstance(slicer, dict):
        found += [(f"in 3D Slicer, {key.replace('_', ' ')}", value) for key, value in slicer.items()]
    if isinstance(sidecar.get("file"), dict):
        found.append(("sha256", "as its .transform.json says"))
    return found


def _stored_lines(description: dict[str, Any]) -> list[str]:
    """Description of a file of stored features or of weights as lines of text."""
    lines = [f"{key}: {_words(description[key])}" for key in ("path", "format", "bytes")]
    for one in description.get("stored", []):
        scale = ", ".join(f"{level['name']} {' x '.join(map(str, level['shape']))}" for level in one.get("levels", []))
        lines.append(f"  {one_line(str(one['path']))}: {one_line(one['problem']) if 'problem' in one else scale}")
    for level in description.get("levels", []):
        lines.append(f"level {level['name']}: {' x '.join(map(str, level['shape']))}")
    for key in ("tensors", "parameters", "layout", "digest"):
        if key in description:
            lines.append(f"{key}: {description[key]}")
    for key, value in description.get("provenance", {}).items():
        lines.append(f"{key.replace('_', ' ')}: {_words(value)}")
    return lines


_AXES = ("first", "second", "third")
_SIDES = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "head", "I": "feet"}


def _words(value: Any) -> str:
    """A value as text for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], list | tuple):
            return "; ".join(_words(inner) for inner in value)
        return ", ".join(_words(inner) for inner in value)
    return one_line(str(value))
