"""`meddift warp` notices images and points of the wrong scan. The transform is a shift: truth is arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from command_scans import Outcome, textured, write_csv, write_nifti

import meddift
from meddift.geometry import AffineTransform
from meddift.io import read_volume, write_transform
from meddift.io.transform_sidecar import sidecar_path, transform_sidecar, write_sidecar

Run = Callable[[list[object]], Outcome]

#: Fixed points to moving points, mm.
SHIFT = np.array([200.0, -30.0, 50.0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A fixed scan, a moving scan far beside it with other voxels, a label map of each, and the transform between."""
    fixed = np.diag([3.0, 3.0, 3.0, 1.0])
    fixed[:3, 3] = [-58.5, -40, 100]
    moving = np.diag([2.0, 4.0, 3.0, 1.0])
    moving[:3, 3] = fixed[:3, 3] + SHIFT
    data = textured((30, 30, 30))
    for name, matrix in (("fixed", fixed), ("moving", moving)):
        write_nifti(tmp_path / f"{name}.nii.gz", data, matrix)
        write_nifti(tmp_path / f"{name}-labels.nii.gz", (data > 0).astype(np.uint8), matrix)
    matrix = np.eye(4)
    matrix[:3, 3] = SHIFT
    write_transform(AffineTransform(matrix), tmp_path / "t.tfm")
    scans = [read_volume(tmp_path / f"{name}.nii.gz") for name in ("fixed", "moving")]
    write_sidecar(transform_sidecar(*scans), sidecar_path(tmp_path / "t.tfm"))
    write_csv(tmp_path / "fixed-points.csv", [[-30.0, -10, 120], [0, 10, 140]])
    write_csv(tmp_path / "moving-points.csv", np.array([[-30.0, -10, 120], [0, 10, 140]]) + SHIFT)
    return tmp_path


def warp(folder: Path, run: Run, *words: str) -> Outcome:
    """`meddift warp t.tfm ...` with names of files in the folder."""
    return run(["warp", folder / "t.tfm", *(folder / word if "." in word else word for word in words)])


@pytest.mark.parametrize(
    ("words", "named", "advice"),
    [
        (
            ["--labels", "fixed-labels.nii.gz", "--onto", "fixed.nii.gz"],
            "fixed-labels.nii.gz",
            "Did you mean --inverse?",
        ),
        (["--image", "moving.nii.gz", "--onto", "moving.nii.gz"], "moving.nii.gz", "Did you mean --inverse?"),
        (["--image", "moving.nii.gz", "--onto", "fixed.nii.gz", "--inverse"], "moving.nii.gz", "Leave --inverse out?"),
        (["--points", "moving-points.csv"], "moving-points.csv", "Did you mean --inverse?"),
        (["--points", "fixed-points.csv", "--inverse"], "fixed-points.csv", "Leave --inverse out?"),
    ],
)
def test_what_lies_on_the_other_scan_is_refused(
    folder: Path, run: Run, words: list[str], named: str, advice: str
) -> None:
    out = "out.csv" if "--points" in words else "out.nii.gz"
    outcome = warp(folder, run, *words, "--out", out)
    assert outcome.code in (1, 2)
    assert named in outcome.stderr
    assert advice in outcome.stderr
    assert not (folder / out).exists()


@pytest.mark.parametrize("inverse", [False, True])
def test_what_lies_on_the_right_scan_is_carried(folder: Path, run: Run, inverse: bool) -> None:
    start, end = ("moving", "fixed") if inverse else ("fixed", "moving")
    more = ["--inverse"] if inverse else []
    outcome = warp(folder, run, "--points", f"{start}-points.csv", "--out", "out.csv", *more)
    assert outcome.code == 0, outcome.stderr
    found = meddift.read_points(folder / "out.csv").positions
    assert np.abs(found - meddift.read_points(folder / f"{end}-points.csv").positions).max() < 1e-3
    carried = ["--labels", f"{end}-labels.nii.gz", "--onto", f"{start}.nii.gz", "--out", "out.nii.gz"]
    assert warp(folder, run, *carried, *more).code == 0


def test_an_inverse_file_is_known_as_one(folder: Path, run: Run) -> None:
    matrix = np.eye(4)
    matrix[:3, 3] = -SHIFT
    write_transform(AffineTransform(matrix), folder / "t.tfm")
    scans = [read_volume(folder / f"{name}.nii.gz") for name in ("fixed", "moving")]
    write_sidecar(transform_sidecar(*scans, inverse=True), sidecar_path(folder / "t.tfm"))
    assert warp(folder, run, "--points", "moving-points.csv", "--out", "out.csv").code == 0
    wrong = warp(folder, run, "--points", "fixed-points.csv", "--out", "other.csv")
    assert "none of its points lies in the moving scan" in wrong.stderr


def test_points_outside_have_no_answer_and_that_is_said(folder: Path, run: Run) -> None:
    write_csv(folder / "some.csv", [[-30.0, -10, 120], [500.0, 0, 0]])
    outcome = warp(folder, run, "--points", "some.csv", "--out", "out.csv")
    assert outcome.code == 0
    assert "1 of 2 points lie outside the fixed scan" in outcome.stderr
    found = meddift.read_points(folder / "out.csv")
    assert found.missing.tolist() == [False, True]
    assert np.abs(found.positions[0] - np.add([-30.0, -10, 120], SHIFT)).max() < 1e-3


def test_points_in_the_other_frame_are_refused(folder: Path, run: Run) -> None:
    write_csv(folder / "lps.csv", [[30.0, 10, 120], [40.0, 38, 140], [45.0, 35, 130]])
    outcome = warp(folder, run, "--points", "lps.csv", "--out", "out.csv")
    assert outcome.code == 2
    assert "LPS taken for RAS" in outcome.stderr


def test_a_scan_is_no_label_map(folder: Path, run: Run) -> None:
    matrix = nibabel.load(folder / "moving.nii.gz").affine
    values = np.random.default_rng(0).integers(-1000, 2000, (30, 30, 30)).astype(np.int16)
    write_nifti(folder / "ct.nii.gz", values, matrix)
    outcome = warp(folder, run, "--labels", "ct.nii.gz", "--onto", "fixed.nii.gz", "--out", "out.nii.gz")
    assert outcome.code == 1
    assert "is no label map" in outcome.stderr
    # Nor is one with few grey values, while few voxels of many labels, and many labels that fill space, are.
    few = np.random.default_rng(0).integers(0, 250, (30, 30, 30)).astype(np.uint8)
    few[:20] = 0
    points = np.where(np.arange(27_000).reshape(30, 30, 30) % 90 == 0, np.arange(27_000).reshape(30, 30, 30) // 90, 0)
    blocks = np.arange(216).reshape(6, 6, 6).repeat(5, 0).repeat(5, 1).repeat(5, 2)
    for values, code in ((few, 1), (points.astype(np.int16), 0), (blocks.astype(np.int16), 0)):
        write_nifti(folder / "some.nii.gz", values, matrix)
        assert (
            warp(folder, run, "--labels", "some.nii.gz", "--onto", "fixed.nii.gz", "--out", "out.nii.gz").code == code
        )


def test_several_transforms_are_applied_in_order(folder: Path, run: Run) -> None:
    """A turn by 90 degrees about the feet-head axis and then the shift: the other order would end elsewhere."""
    turn = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    write_transform(AffineTransform(turn), folder / "turn.tfm")
    outcome = run(
        ["warp", folder / "turn.tfm", folder / "t.tfm", "-p", folder / "fixed-points.csv", "-o", folder / "o.csv"]
    )
    assert outcome.code == 0, outcome.stderr
    given = meddift.read_points(folder / "fixed-points.csv").positions
    expected = np.stack([-given[:, 1], given[:, 0], given[:, 2]], axis=1) + SHIFT
    assert np.abs(meddift.read_points(folder / "o.csv").positions - expected).max() < 1e-3


def test_interpolation_by_name(folder: Path, run: Run) -> None:
    """With nearest neighbours no value appears that the image does not have."""
    words = ["--image", "moving.nii.gz", "--onto", "fixed.nii.gz", "--out", "out.nii.gz"]
    assert warp(folder, run, *words, "--interpolation", "Nearest").code == 0
    known = set(np.unique(np.asarray(nibabel.load(folder / "moving.nii.gz").dataobj)))
    nearest = set(np.unique(np.asarray(nibabel.load(folder / "out.nii.gz").dataobj)))
    assert nearest <= known
    assert warp(folder, run, *words).code == 0
    assert not set(np.unique(np.asarray(nibabel.load(folder / "out.nii.gz").dataobj))) <= known
