"""`meddift info` on every kind of transform that is read or written: numbers known beforehand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from typer.testing import CliRunner

from meddift.cli.app import app
from meddift.geometry import DisplacementField, Grid
from meddift.io import write_transform
from meddift.io.describe_transform import describe_transform, holds_displacements
from meddift.io.transform_sidecar import file_entry, sidecar_path, transform_sidecar, write_sidecar
from meddift.volume import Volume

GRID = Grid((4, 5, 6), np.diag([2.0, 3.0, 4.0, 1.0]))


def constant_field() -> DisplacementField:
    values = np.zeros((3, *GRID.shape), np.float32)
    values[0], values[2] = 3.0, 4.0  # 5 mm everywhere
    return DisplacementField(values, GRID)


@pytest.mark.parametrize("name", ["a.tfm", "a.txt", "a.h5", "a.mat"])
def test_an_affine(name: str, tmp_path: Path) -> None:
    turn = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.0, 0.0, np.deg2rad(30.0), (1.0, -2.0, 3.0))
    sitk.WriteTransform(turn, str(tmp_path / name))
    told = describe_transform(tmp_path / name)
    (part,) = told["parts"]
    assert part["kind"] == "affine"
    assert part["shift_mm"] == [-1.0, 2.0, 3.0]  # RAS
    assert part["rotation_degrees"] == pytest.approx(30.0, abs=1e-4)
    assert told["frame"] == "LPS, mm"
    assert told["sidecar"] is None


@pytest.mark.parametrize("name", ["f.h5", "f.nii", "f.nii.gz", "f.nrrd", "f.mha"])
def test_a_displacement_field_is_told_as_a_transform(name: str, tmp_path: Path) -> None:
    write_transform(constant_field(), tmp_path / name)
    result = CliRunner().invoke(app, ["info", str(tmp_path / name), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    (part,) = told["parts"]
    assert part["kind"] == "displacement field"
    assert part["shape"] == [4, 5, 6]
    assert part["spacing_mm"] == pytest.approx([2.0, 3.0, 4.0])
    assert part["largest_mm"] == pytest.approx(5.0)
    assert part["orientation"] == "RAS"


def test_a_spline_and_a_composition(tmp_path: Path) -> None:
    spline = sitk.BSplineTransformInitializer(sitk.Image([30, 30, 30], sitk.sitkUInt8), [3, 3, 3], 2)
    spline.SetParameters([0.5] * len(spline.GetParameters()))
    both = sitk.CompositeTransform([sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), spline])
    sitk.WriteTransform(both, str(tmp_path / "both.h5"))
    first, second = describe_transform(tmp_path / "both.h5")["parts"]
    assert first["kind"] == "B-spline"  # added last, applied first
    assert (first["order"], first["shape"], first["largest_mm"]) == (2, [5, 5, 5], 0.5)
    assert second["shift_mm"] == [-1.0, -2.0, 3.0]


def test_scans_are_not_taken_for_fields(tmp_path: Path) -> None:
    for name in ("scan.nii.gz", "scan.nrrd", "scan.mha"):
        sitk.WriteImage(sitk.Image([4, 5, 6], sitk.sitkFloat32), str(tmp_path / name))
        assert not holds_displacements(tmp_path / name)
    (tmp_path / "empty.nrrd").write_bytes(b"")
    assert not holds_displacements(tmp_path / "empty.nrrd")


@pytest.mark.parametrize("inverse", [False, True])
def test_what_the_sidecar_says_is_told(inverse: bool, tmp_path: Path) -> None:
    path = tmp_path / "T.h5"
    write_transform(constant_field(), path)
    fixed, moving = (Volume(np.full(GRID.shape, value, np.int16), GRID) for value in (0, 1))
    content = transform_sidecar(fixed, moving, inverse=inverse)
    write_sidecar({**content, "file": file_entry(path, name=path.name)}, sidecar_path(path))
    words = CliRunner().invoke(app, ["info", str(path)]).stdout
    assert f"points: {'moving to fixed' if inverse else 'fixed to moving'}" in words
    assert f"node: {'fixed-to-moving' if inverse else 'moving-to-fixed'}" in words
    assert f"sha256 {fixed.digest()[:12]}" in words
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    result = CliRunner().invoke(app, ["info", str(path)])
    assert result.exit_code == 1
    assert "not the file that T.transform.json describes" in str(result.output) + str(result.exception)
