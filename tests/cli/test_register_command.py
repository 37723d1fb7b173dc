"""`meddift register` and `meddift warp`: files, exit codes, and numbers against what was done to the scans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from command_scans import SHIFT, SPACING, Outcome, affine, textured, write_csv, write_nifti

Run = Callable[[list[str]], Outcome]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """One registration with everything that can be asked for."""
    from typer.testing import CliRunner

    from meddift.cli.app import app

    folder = tmp_path_factory.mktemp("register")
    data = textured((44, 40, 36))
    step = tuple((SHIFT / SPACING).astype(int))
    write_nifti(folder / "fixed.nii.gz", data)
    write_nifti(folder / "moving.nii.gz", np.roll(data, step, axis=(0, 1, 2)))
    labels = np.zeros(data.shape, dtype=np.uint8)
    labels[20:26, 15:22, 12:20] = 7
    write_nifti(folder / "labels.nii.gz", np.roll(labels, step, axis=(0, 1, 2)))
    middle = affine()[:3, :3] @ [22, 20, 18] + affine()[:3, 3]
    positions = middle + np.array([[0, 0, 0], [12, 9, -12], [-18, 6, 3], [9, -15, 12.0]])
    write_csv(folder / "points.csv", positions)
    write_csv(folder / "truth.csv", positions + SHIFT)
    arguments = ["register", "fixed.nii.gz", "moving.nii.gz", "--no-store", "--levels", "mind", "--json"]
    for name, value in (
        ("out", "T.h5"),
        ("inverse", "Ti.nii.gz"),
        ("affine", "A.tfm"),
        ("learn2reg", "disp.nii.gz"),
        ("points", "points.csv"),
        ("points-out", "found.mrk.json"),
        ("truth", "truth.csv"),
        ("warped", "W.nii.gz"),
        ("labels", "labels.nii.gz"),
        ("labels-out", "L.nii.gz"),
        ("jacobian", "J.nii.gz"),
        ("uncertainty", "U.nii.gz"),
        ("picture", "P.png"),
    ):
        arguments += [f"--{name}", value]
    whole = [str(folder / a) if "." in a and not a.startswith("--") else a for a in arguments]
    result = CliRunner().invoke(app, whole)
    return folder, Outcome(result.exit_code, result.stdout, result.stderr)


def test_everything_is_written_and_the_numbers_are_right(done: tuple[Path, Outcome]) -> None:
    folder, outcome = done
    assert outcome.code == 0, outcome.stderr
    report = outcome.json
    assert report["tre_mm"]["max"] < 1.0
    assert report["folding"] == 0
    assert report["supported_share_of_body"] > 0.7
    assert report["inverse_residual_mm"]["median"] < 0.2
    names = {path.name for path in folder.iterdir()}
    assert {"T.h5", "T.transform.json", "Ti.nii.gz", "Ti.transform.json", "A.tfm", "disp.nii.gz", "P.png"} < names
    assert not [name for name in names if name.startswith(".tmp")]


def test_sidecars_hold_the_hash_of_their_file(done: tuple[Path, Outcome]) -> None:
    folder, _ = done
    for name, beside in (("T.h5", "T"), ("Ti.nii.gz", "Ti"), ("A.tfm", "A")):
        told = json.loads((folder / f"{beside}.transform.json").read_text())["file"]
        raw = (folder / name).read_bytes()
        assert told == {"name": name, "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}


def test_the_transform_moves_points_in_simpleitk(done: tuple[Path, Outcome]) -> None:
    folder, _ = done
    for name, limit in (("T.h5", 1.0), ("A.tfm", 1.5)):
        transform = sitk.ReadTransform(str(folder / name))
        x, y, z = (affine() @ [22, 20, 18, 1])[:3]
        moved = np.array(transform.TransformPoint((-x, -y, z))) * [-1, -1, 1]
        assert np.linalg.norm(moved - np.array([x, y, z]) - SHIFT) < limit


def test_warped_images_and_labels_lie_on_the_fixed_scan(done: tuple[Path, Outcome]) -> None:
    folder, _ = done
    fixed, warped = (nibabel.load(folder / name) for name in ("fixed.nii.gz", "W.nii.gz"))
    assert np.allclose(fixed.affine, warped.affine)
    inner = (slice(8, -8),) * 3
    a, b = (np.asarray(image.dataobj)[inner].ravel().astype(float) for image in (fixed, warped))
    assert np.corrcoef(a, b)[0, 1] > 0.97
    labels = np.asarray(nibabel.load(folder / "L.nii.gz").dataobj)
    assert set(np.unique(labels)) == {0, 7}
    truth = np.zeros(labels.shape, dtype=bool)
    truth[20:26, 15:22, 12:20] = True
    assert 2 * (truth & (labels == 7)).sum() / (truth.sum() + (labels == 7).sum()) > 0.85
    determinant = np.asarray(nibabel.load(folder / "J.nii.gz").dataobj)[inner]
    assert 0.9 < np.median(determinant) < 1.1


def test_warp_takes_points_there_and_back(done: tuple[Path, Outcome], run: Run, tmp_path: Path) -> None:
    folder, _ = done
    there, back = tmp_path / "there.csv", tmp_path / "back.csv"
    assert run(["warp", folder / "T.h5", "--points", folder / "points.csv", "--out", there]).code == 0
    outcome = run(["warp", folder / "T.h5", "--points", there, "--inverse", "--out", back, "--json"])
    assert outcome.code == 0
    assert outcome.json["inverse_residual_mm"]["max"] < 0.01
    start = json.loads(run(["warp", folder / "A.tfm", "--points", back, "--out", tmp_path / "x.csv", "--json"]).stdout)
    assert len(start["points"]) == 4
    first = [line for line in back.read_text().splitlines() if not line.startswith("#")]
    given = [line for line in (folder / "points.csv").read_text().splitlines() if not line.startswith("#")]
    values = [np.array([float(v) for v in line.split(",")[1:4]]) for line in (first[1], given[1])]
    assert np.abs(values[0] - values[1]).max() < 0.01


def test_warp_does_what_register_did(done: tuple[Path, Outcome], run: Run, tmp_path: Path) -> None:
    folder, _ = done
    arguments = ["warp", folder / "T.h5", "--onto", folder / "fixed.nii.gz"]
    out = tmp_path / "w.nii.gz"
    assert run([*arguments, "--image", folder / "moving.nii.gz", "--out", out]).code == 0
    assert (np.asarray(nibabel.load(out).dataobj) == np.asarray(nibabel.load(folder / "W.nii.gz").dataobj)).all()
    out = tmp_path / "l.nii.gz"
    assert run([*arguments, "--labels", folder / "labels.nii.gz", "--out", out]).code == 0
    assert (np.asarray(nibabel.load(out).dataobj) == np.asarray(nibabel.load(folder / "L.nii.gz").dataobj)).all()
    assert run([*arguments, "--jacobian", tmp_path / "j.nii.gz", "--json"]).json["jacobian"]["folding"] == 0


def test_masks_and_labels_may_be_the_same_everywhere(done: tuple[Path, Outcome], run: Run, tmp_path: Path) -> None:
    folder, _ = done
    write_nifti(tmp_path / "ones.nii.gz", np.ones((44, 40, 36), dtype=np.uint8))
    pair = [str(folder / "fixed.nii.gz"), str(folder / "moving.nii.gz")]
    scans = [*pair, "--no-store", "--levels", "mind", "--stages", "affine"]
    mask = ["--fixed-mask", str(tmp_path / "ones.nii.gz"), "--moving-mask", str(tmp_path / "ones.nii.gz")]
    outcome = run(["register", *scans, *mask, "--out", str(tmp_path / "T.h5")])
    assert outcome.code == 0, outcome.stderr
    labels = ["--labels", str(tmp_path / "ones.nii.gz"), "--onto", str(tmp_path / "ones.nii.gz")]
    outcome = run(["warp", str(tmp_path / "T.h5"), *labels, "--out", str(tmp_path / "L.nii.gz")])
    assert outcome.code == 0, outcome.stderr
    warped = np.asarray(nibabel.load(tmp_path / "L.nii.gz").dataobj)
    # One where the shifted field of view reaches, 0 beyond it.
    assert set(np.unique(warped)) == {0, 1}


def test_warp_turned_around_brings_the_fixed_scan_onto_the_moving_one(
    done: tuple[Path, Outcome], run: Run, tmp_path: Path
) -> None:
    folder, _ = done
    out = tmp_path / "fixed-on-moving.nii.gz"
    images = ["--image", folder / "fixed.nii.gz", "--onto", folder / "moving.nii.gz"]
    outcome = run(["warp", folder / "T.h5", *images, "--inverse", "--out", out, "--json"])
    assert outcome.json["inverse_residual_mm"]["median"] < 0.05
    inner = (slice(8, -8),) * 3
    a, b = (np.asarray(nibabel.load(p).dataobj)[inner].ravel().astype(float) for p in (out, folder / "moving.nii.gz"))
    assert np.corrcoef(a, b)[0, 1] > 0.97


def test_scans_with_nothing_in_common_write_nothing(run: Run, tmp_path: Path) -> None:
    write_nifti(tmp_path / "fixed.nii.gz", textured((36, 36, 36), seed=1))
    write_nifti(tmp_path / "other.nii.gz", textured((36, 36, 36), seed=2))
    wishes = ["--out", tmp_path / "T.h5", "--warped", tmp_path / "W.nii.gz", "--no-store", "--levels", "mind"]
    outcome = run(["register", tmp_path / "fixed.nii.gz", tmp_path / "other.nii.gz", *wishes])
    assert outcome.code == 1
    assert "no reliable correspondence" in outcome.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"fixed.nii.gz", "other.nii.gz"}


@pytest.mark.parametrize(
    ("more", "code", "what"),
    [
        ([], 2, "nothing to do"),
        (["--out", "T.xyz"], 2, "transforms are written to"),
        (["--out", "T.tfm"], 2, "as text would be huge"),
        (["--out", "T.nii.gz", "--stages", "affine"], 2, "not to an image"),
        (["--out", "T.nrrd", "--stages", "rigid"], 2, "not to an image"),
        (["--out", "T.h5", "--stages", "rigid,affine"], 2, "or rigid alone"),
        (["--out", "T.h5", "--affine", "T.tfm"], 2, "T.transform.json is asked for twice"),
        (["--out", "T.h5", "--stages", "refine"], 2, "affine is always one of them"),
        (["--out", "T.h5", "--stages", "affine,warp"], 2, "stages are affine, dense, refine"),
        (["--out", "T.h5", "--truth", "points.csv"], 2, "--truth needs --points"),
        (["--out", "T.h5", "--points", "points.csv"], 2, "belong together"),
        (["--out", "T.h5", "--labels", "fixed.nii.gz"], 2, "belong together"),
        (["--out", "fixed.nii.gz"], 2, "also an input"),
        (["--out", "T.h5", "--warped", "T.h5"], 2, "images are written to"),
        (["--out", "missing/T.h5"], 1, "there is no folder"),
        (["--out", "T.h5", "--picture", "P.jpg"], 2, "pictures are written to .png"),
        (["--out", "T.h5", "--fixed-mask", "no.nii.gz"], 1, "no.nii.gz"),
        (["--out", "T.h5", "--fixed-mask", "empty.nii.gz"], 1, "empty.nii.gz is empty"),
        (["--out", "T.h5", "--inverse", "T.h5"], 2, "asked for twice"),
    ],
)
def test_bad_wishes_are_refused_before_the_work(
    more: list[str], code: int, what: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = textured((12, 12, 12))
    write_nifti(tmp_path / "fixed.nii.gz", data)
    write_nifti(tmp_path / "moving.nii.gz", data)
    write_nifti(tmp_path / "empty.nii.gz", np.zeros((12, 12, 12), dtype=np.uint8))
    write_csv(tmp_path / "points.csv", affine()[:3, 3][None] + 10)
    before = {path.name for path in tmp_path.iterdir()}
    outcome = run(["register", "fixed.nii.gz", "moving.nii.gz", *more])
    assert outcome.code == code, outcome.stderr
    assert what in outcome.stderr
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("more", "code", "what"),
    [
        ([], 2, "nothing to do"),
        (["--image", "fixed.nii.gz", "--out", "o.nii.gz"], 2, "--onto is needed"),
        (["--image", "fixed.nii.gz", "--labels", "fixed.nii.gz", "--out", "o.nii.gz"], 2, "one thing at a time"),
        (["--image", "fixed.nii.gz", "--onto", "fixed.nii.gz"], 2, "--out goes with"),
        (["--points", "none.csv", "--out", "o.csv"], 1, "none.csv"),
    ],
)
def test_warp_refuses_what_makes_no_sense(
    more: list[str], code: int, what: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_nifti(tmp_path / "fixed.nii.gz", textured((12, 12, 12)))
    sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), "t.tfm")
    before = {path.name for path in tmp_path.iterdir()}
    outcome = run(["warp", "t.tfm", *more])
    assert outcome.code == code, outcome.stderr
    assert what in outcome.stderr
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_broken_transform_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "T.h5").write_bytes(b"\x89HDF nothing")
    write_csv(tmp_path / "p.csv", np.zeros((1, 3)))
    outcome = run(["warp", tmp_path / "T.h5", "--points", tmp_path / "p.csv", "--out", tmp_path / "o.csv"])
    assert outcome.code == 1
    assert "T.h5" in outcome.stderr
    assert not (tmp_path / "o.csv").exists()


def test_a_point_without_counterpart_does_not_cost_the_transform(
    done: tuple[Path, Outcome], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """elastix files cannot say it; that a point of the fixed scan has none is known only after the work."""
    from meddift.cli.points_files import PointsTarget

    monkeypatch.setattr(PointsTarget, "rehearse", lambda *_: None)
    folder, _ = done
    middle = affine()[:3, :3] @ [22, 20, 18] + affine()[:3, 3]
    points = write_csv(tmp_path / "points.csv", np.array([middle, middle + 5000.0]))
    arguments = [
        "register",
        folder / "fixed.nii.gz",
        folder / "moving.nii.gz",
        "--stages",
        "affine",
        "--levels",
        "mind",
    ]
    arguments += ["--no-store", "-p", points, "--points-out", tmp_path / "there.txt", "-o", tmp_path / "T.tfm"]
    outcome = run(arguments)
    assert outcome.code == 3, outcome.stderr
    assert "the elastix format cannot say" in outcome.stderr
    assert (tmp_path / "T.tfm").is_file()
    assert not (tmp_path / "there.txt").exists()
    assert (tmp_path / "there.txt.csv").read_text().count("\n") == 4  # frame, header, two points
