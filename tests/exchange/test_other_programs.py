"""Transforms written by ANTs, elastix, SimpleITK and nibabel, in eight orientations and oblique.

Read, applied and written back. The truth is each program's own way of carrying a point; 0.01 mm is asked for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from exchange_grids import NAMES, SHAPE, affine, inner_points, lps

from meddift.geometry import CompositeTransform, DisplacementField, Transform
from meddift.io import read_transform, write_transform

HERE = Path(__file__).parent
LPS = np.array([-1.0, -1.0, 1.0])
WITHIN_MM = 0.01
POINTS = inner_points()


def made(script: str, folder: Path) -> dict[str, Any]:
    """Run a script in a process of its own: these programs and SimpleITK do not get on in one."""
    run = subprocess.run(
        [sys.executable, str(HERE / f"make_{script}_files.py"), str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found: dict[str, Any] = json.loads((folder / f"{script}.json").read_text())
    return found


def assert_carries(transform: Transform, expected_lps: Any) -> None:
    moved = transform.apply(POINTS)
    assert np.abs(moved - POINTS).max() > 1.0  # it does something
    assert np.abs(moved * LPS - np.array(expected_lps)).max() < WITHIN_MM


@pytest.mark.skipif(find_spec("ants") is None, reason="needs antspyx")
def test_ants(tmp_path: Path) -> None:
    for name, told in made("ants", tmp_path).items():
        warp, affine_file = told["files"]
        assert (warp, affine_file) == (f"{name}-1Warp.nii.gz", f"{name}-0GenericAffine.mat")
        parts = (read_transform(tmp_path / warp), read_transform(tmp_path / affine_file))
        assert_carries(parts[1], told["affine_lps"])
        assert_carries(CompositeTransform(parts), told["lps"])
        write_transform(CompositeTransform(parts), tmp_path / "again.h5")
        assert_carries(read_transform(tmp_path / "again.h5"), told["lps"])
        write_transform(parts[0], tmp_path / "again.nii.gz")
        assert_carries(CompositeTransform((read_transform(tmp_path / "again.nii.gz"), parts[1])), told["lps"])


def test_elastix_kept(tmp_path: Path) -> None:
    """Its transforms in ITK's files, whole and as compositions: rigid, and as a B-spline; on the oblique grid."""
    for case, told in json.loads((HERE / "elastix" / "elastix.json").read_text()).items():
        assert_elastix(HERE / "elastix" / case, told, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("itk") is None, reason="needs itk-elastix")
def test_elastix(tmp_path: Path) -> None:
    """The same in all orientations, and the fields of transformix."""
    for case, told in made("elastix", tmp_path).items():
        assert_elastix(tmp_path / case, told, tmp_path)
        if case.endswith("rigid"):  # between its voxels the field of a spline is not the spline
            for file in ("field.mha", "deformationField.nii"):
                field = read_transform(tmp_path / case / file)
                assert_carries(field, told["lps"])
                write_transform(field, tmp_path / "again.nrrd")
                assert_carries(read_transform(tmp_path / "again.nrrd"), told["lps"])


def assert_elastix(folder: Path, told: dict[str, Any], spare: Path) -> None:
    assert len(told["files"]) == 2
    for file in told["files"]:
        found = read_transform(folder / file)
        assert_carries(found, told["lps"])
        write_transform(found, spare / "again.h5")
        assert_carries(read_transform(spare / "again.h5"), told["lps"])


def drawn_field() -> np.ndarray:
    """(X, Y, Z, 3) displacements, LPS mm."""
    return np.random.default_rng(5).normal(2, 3, (*SHAPE, 3)).astype(np.float32)


def field_of_simpleitk(name: str) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(drawn_field().transpose(2, 1, 0, 3)), isVector=True)
    origin, spacing, rows = lps(name)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(rows)
    return image


def by_simpleitk(transform: sitk.Transform) -> np.ndarray:
    return np.array([transform.TransformPoint(point) for point in (POINTS * LPS).tolist()])


@pytest.mark.parametrize("name", NAMES)
def test_simpleitk(name: str, tmp_path: Path) -> None:
    truth = by_simpleitk(sitk.DisplacementFieldTransform(sitk.Cast(field_of_simpleitk(name), sitk.sitkVectorFloat64)))
    rigid = sitk.Euler3DTransform((12.0, 18.0, 40.0), 0.1, -0.2, 0.15, (3.0, -4.0, 5.0))
    for file in ("field.nii.gz", "field.nrrd", "field.mha", "packed.nrrd", "packed.mha"):
        sitk.WriteImage(field_of_simpleitk(name), str(tmp_path / file), file.startswith("packed"))
        field = read_transform(tmp_path / file)
        assert isinstance(field, DisplacementField)
        assert_carries(field, truth)
        write_transform(field, tmp_path / f"again-{file}")
        again = sitk.ReadImage(str(tmp_path / f"again-{file}"), sitk.sitkVectorFloat64)
        assert np.abs(by_simpleitk(sitk.DisplacementFieldTransform(again)) - truth).max() < WITHIN_MM
    field_transform = sitk.DisplacementFieldTransform(sitk.Cast(field_of_simpleitk(name), sitk.sitkVectorFloat64))
    both = sitk.CompositeTransform([rigid, field_transform])  # the field first, then the rigid one
    sitk.WriteTransform(both, str(tmp_path / "both.h5"))
    assert_carries(read_transform(tmp_path / "both.h5"), by_simpleitk(both))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", [1, 2])
def test_nibabel(name: str, version: int, tmp_path: Path) -> None:
    """A field as nibabel's users write it: five axes, intent 1007, LPS mm. nibabel has no transforms: the truth is
    the value at voxels, and SimpleITK's reading of the file between them."""
    values = drawn_field()
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    image = kind(values[:, :, :, None], affine(name))
    image.header.set_intent(1007)
    for file in ("field.nii", "field.nii.gz"):
        nibabel.save(image, tmp_path / file)
        field = read_transform(tmp_path / file)
        voxels = np.array([[3, 4, 5], [10, 1, 7], [21, 19, 17]])
        world = nibabel.affines.apply_affine(affine(name), voxels)
        expected = world + values[tuple(voxels.T)] * LPS
        np.testing.assert_allclose(field.apply(world), expected, atol=WITHIN_MM)
    if version == 1:  # ITK reads NIfTI-2 as well, but not every build does
        truth = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / "field.nii"), sitk.sitkVectorFloat64))
        assert_carries(field, by_simpleitk(truth))
