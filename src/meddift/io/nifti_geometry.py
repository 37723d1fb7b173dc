"""Where a NIfTI header places its voxels, and where its two forms contradict each other.

The header is judged here in every point where programs disagree (measured with nibabel 5.4, SimpleITK 2.5):
nibabel takes the sform whenever it has a code, ITK takes the qform unless the sform's code is 1, NiiVue takes
the form with the larger code; ITK takes the spacing from `pixdim` even when it takes the sform; a unit other
than mm changes spacings in ITK, and nothing in nibabel. A scan about which programs disagree is refused, for
its points would lie at one place here and at another in the user's viewer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from meddift.errors import GeometryError, MeddiftError
from meddift.geometry import Grid, flip_affine_ras_lps
from meddift.io.header import REPAIR, geometry_problems

NiftiForm = Literal["sform", "qform"]
#: Largest distance at a corner of the field of view between two statements that count as the same, mm.
TOLERANCE_MM = 1e-3
#: Rounding of a quaternion component, stored as float32 and computed in float32 by some writers.
_QUATERNION_ROUNDING = 5e-7
#: How far b^2 + c^2 + d^2 of a quaternion may exceed 1 by rounding; it is scaled to 1 then, as ITK and nibabel do.
_NORM_ROUNDING = 1e-5
#: `xyzt_units & 7` of lengths that are not mm. 0 (unknown) is read as mm by every program.
_OTHER_UNITS = {1: "metres", 3: "micrometres"}


def nifti_affine(
    header: Any,
    shape: tuple[int, ...],
    path: Path | str,
    *,
    nifti_form: NiftiForm | None = None,
    assume_geometry: bool = False,
) -> tuple[NDArray[np.float64] | None, list[MeddiftError]]:
    """The geometry a NIfTI header states, and where it contradicts itself.

    Args:
        header: nibabel header.
        shape: Lengths of the three axes.
        path: For messages.
        nifti_form: Which form to believe, where they differ; where there is only one, that one holds.
        assume_geometry: See `read_nifti_header`.

    Returns:
        The (4, 4) affine to world RAS mm, if any can be told, and the problems.
    """
    sform, qform = header.get_sform(coded=True)[0], None
    if sform is None or nifti_form != "sform":
        header.quaternion_threshold = -_NORM_ROUNDING
        try:
            qform = header.get_qform(coded=True)[0]
        except Exception as error:  # nibabel raises several types here
            return None, [GeometryError(f"the qform in the header of {path} is not usable: {error}. {REPAIR}")]
    codes = f"sform code {int(header['sform_code'])}, qform code {int(header['qform_code'])}"
    if sform is not None and nifti_form == "sform":
        return sform, _unit_problems(header, path) + geometry_problems(shape, sform, path)
    if qform is not None and nifti_form == "qform":
        return qform, _unit_problems(header, path) + geometry_problems(shape, qform, path)
    if sform is None and qform is None:
        return _stated_nowhere(header, shape, path, codes=codes, assume_geometry=assume_geometry)

    affine: NDArray[np.float64] = np.asarray(qform if sform is None else sform)
    problems: list[MeddiftError] = []
    problems += _unit_problems(header, path)
    problems += geometry_problems(shape, affine, path)
    if problems:
        return affine, problems
    if sform is not None and qform is not None:
        distance = corner_distance(shape, sform, qform)
        if not distance <= TOLERANCE_MM and not _same_rotation_rounded(header, sform):
            problems.append(
                GeometryError(
                    f"{path} states two geometries: sform and qform differ by {distance:.4g} mm at a corner "
                    f"({codes}), and programs disagree about which one holds. Choose with --nifti-form sform or "
                    "--nifti-form qform (for one of two scans: --fixed-nifti-form, --moving-nifti-form): open the "
                    "scan in your viewer and compare a point whose position you know."
                )
            )
    if sform is not None and not problems:
        # A form with the directions of the sform and the spacings of pixdim: what ITK makes of the file.
        spacing = np.asarray(header["pixdim"][1:4], dtype=np.float64)
        rescaled = sform.copy()
        rescaled[:3, :3] *= spacing / np.linalg.norm(sform[:3, :3], axis=0)
        distance = corner_distance(shape, sform, rescaled)
        if not distance <= 10 * TOLERANCE_MM:
            problems.append(
                GeometryError(
                    f"{path} states two spacings: pixdim says {spacing.tolist()} mm and the sform "
                    f"{np.linalg.norm(sform[:3, :3], axis=0).tolist()} mm, which differ by {distance:.4g} mm at a "
                    "corner; ITK believes the first and nibabel the second. Choose the sform with "
                    "--nifti-form sform, or repair the header."
                )
            )
    return affine, problems


def _unit_problems(header: Any, path: Path | str) -> list[MeddiftError]:
    """Lengths in another unit than mm."""
    unit = _OTHER_UNITS.get(int(header["xyzt_units"]) & 7)
    if unit is None:
        return []
    return [
        GeometryError(
            f"{path} states its lengths in {unit}; programs differ in what they make of that. "
            "Write the file again in mm (xyzt_units 2)."
        )
    ]


def _stated_nowhere(
    header: Any, shape: tuple[int, ...], path: Path | str, *, codes: str, assume_geometry: bool
) -> tuple[NDArray[np.float64] | None, list[MeddiftError]]:
    """Neither form has a code: spacing is all that is known."""
    spacing = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        return None, [GeometryError(f"the spacing in the header of {path} is not positive: {spacing} mm. {REPAIR}")]
    affine = flip_affine_ras_lps(np.diag([*spacing, 1.0]))
    problems = _unit_problems(header, path) + geometry_problems(shape, affine, path)
    if not assume_geometry:
        problems.append(
            GeometryError(
                f"{path} does not state where it lies in space nor which side is left ({codes}). Use the file from "
                "before this was lost, or say --assume-geometry to take its axes as left, posterior, superior."
            )
        )
    return affine, problems


def corner_distance(shape: tuple[int, ...], one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Largest distance between the corners of two grids, mm; infinite where one is no grid."""
    size = (shape[0], shape[1], shape[2])
    try:
        return float(np.linalg.norm(Grid(size, one).corners - Grid(size, other).corners, axis=1).max())
    except GeometryError:
        return float("inf")


def _same_rotation_rounded(header: Any, sform: NDArray[np.float64]) -> bool:
    """Whether the qform is what remains of the sform after the rounding of its quaternion.

    The header stores b, c, d as float32 and leaves out a = sqrt(1 - b^2 - c^2 - d^2). Where a is nearly 0, as in
    slightly oblique scans with axes left, posterior, superior, that rounding alone turns the qform by up to 1e-3 rad.
    """
    encoded = type(header)()
    encoded.set_data_shape(header.get_data_shape())
    encoded.set_qform(sform, 1, strip_shears=True)
    names = ("quatern_b", "quatern_c", "quatern_d")
    stored = np.array([float(header[name]) for name in names])
    wanted = np.array([float(encoded[name]) for name in names])
    # (a, b, c, d) and (-a, -b, -c, -d) are the same rotation; where a is nearly 0, either may stand there.
    same = min(np.abs(stored - wanted).max(), np.abs(stored + wanted).max()) <= _QUATERNION_ROUNDING
    small_a = 1 - float(stored @ stored) <= 1e-6 or np.abs(stored - wanted).max() <= _QUATERNION_ROUNDING
    spacing = np.allclose(header["pixdim"][1:4], encoded["pixdim"][1:4], rtol=1e-6, atol=0)
    handed = float(header["pixdim"][0] or 1) * float(encoded["pixdim"][0]) > 0
    offset = np.abs(header.get_qform()[:3, 3] - sform[:3, 3]).max() <= TOLERANCE_MM
    return bool(same and small_a and spacing and handed and offset)
