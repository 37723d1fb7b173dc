"""With the engine of meddift, on the hand-made level: files, numbers against the truth, each scan encoded once."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from cohort.bids_scans import HAND_MADE, LESIONS, SPACING, STEP, affine, bids, points, tissue, write
from cohort.small_disks import small_disk
from meddift import cohort
from meddift.cohort.manifest import read_manifests
from meddift.errors import OutputError


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "cohort.tsv").open(newline="") as stream:
        return {row["case"]: row for row in csv.DictReader(stream, delimiter="\t")}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Two patients of two scans each, registered and followed."""
    root = bids(tmp_path_factory.mktemp("study") / "bids")
    out = root / "derivatives" / "meddift"
    outcome = cohort.run(cohort.Plan(root, out, do=("register", "track"), matcher=HAND_MADE, workers=1, threads=1))
    assert outcome.counts == {"done": 4}, rows(out)
    return root


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """A table of pairs with points, truth, masks and labels, one of them broken."""
    folder = tmp_path_factory.mktemp("pairs")
    for k in range(3):
        write(folder / f"s{k}.nii.gz", np.roll(tissue(7), k * STEP, (0, 1, 2)))
    whole = write(folder / "s0.nii.gz", tissue(7)).read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    write(folder / "mask.nii.gz", np.ones((32,) * 3, np.uint8))
    points(folder)
    head = "case,fixed,moving,points,truth,fixed_mask,labels"
    lines = ["a,s0.nii.gz,s1.nii.gz,points.csv,truth.csv,mask.nii.gz,mask.nii.gz", "b,s0.nii.gz,s2.nii.gz,,,,",
             "c,s1.nii.gz,s2.nii.gz,,,,", "d,s0.nii.gz,cut.nii.gz,,,,"]  # fmt: skip
    (folder / "pairs.csv").write_text("\n".join([head, *lines]) + "\n")
    plan = cohort.Plan(
        folder / "pairs.csv", folder / "out", do=("match", "register"), matcher=HAND_MADE, workers=1, threads=1,
        files=cohort.Files(inverse=True, warped=True, jacobian=True),
    )  # fmt: skip
    outcome = cohort.run(plan)
    assert outcome.counts == {"done": 3, "failed": 1}, rows(folder / "out")
    return folder


def test_each_scan_is_encoded_once_and_let_go_at_the_end(study):
    out = study / "derivatives" / "meddift"
    made = [line["made"] for line in read_manifests(out) if "scan" in line]
    assert made == [True] * 4
    assert not list((out / "work").rglob("*.safetensors"))


def test_pairs_are_in_the_order_of_time_and_named_as_fmriprep_names_them(study):
    out = study / "derivatives" / "meddift"
    path = out / "sub-01" / "ses-01" / "ct" / "sub-01_ses-01_from-ses01_to-ses02_mode-image_xfm.h5"
    # ses-02 is the earlier one: fixed. The file takes the moving image onto it.
    fixed, moving = (
        SimpleITK.ReadImage(str(study / "sub-01" / s / "ct" / f"sub-01_{s}_ct.nii.gz"), SimpleITK.sitkFloat32)
        for s in ("ses-02", "ses-01")
    )
    transform = SimpleITK.ReadTransform(str(path))
    warped = SimpleITK.GetArrayFromImage(SimpleITK.Resample(moving, fixed, transform, SimpleITK.sitkLinear))
    inner = (slice(8, 24),) * 3
    still = SimpleITK.GetArrayFromImage(moving)[inner] - SimpleITK.GetArrayFromImage(fixed)[inner]
    assert np.abs(warped[inner] - SimpleITK.GetArrayFromImage(fixed)[inner]).mean() < 0.2 * np.abs(still).mean()
    told = json.loads(path.with_suffix(".json").read_text())
    assert told["direction"]["images"] == "moving onto fixed"


def test_lesions_are_followed(study):
    out = study / "derivatives" / "meddift"
    row = rows(out)["01_lesions"]
    assert (row["lesions"], row["new"], row["disappeared"]) == ("2", "0", "0")
    table = (out / "sub-01" / "sub-01_desc-lesions_table.tsv").read_text().splitlines()
    assert table[0].startswith("subject\ttimepoint")
    assert len(table) == 1 + 2 * len(LESIONS)
    assert (out / "sub-01" / "lesions" / "lesions.json").is_file()


def test_the_derivative_passes_the_validator_of_bids(study):
    pytest.importorskip("bids_validator_deno")
    found = subprocess.run(
        [Path(sys.executable).parent / "bids-validator-deno", str(study / "derivatives" / "meddift"), "--format=json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    issues = json.loads(found.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert found.returncode == 0


def test_numbers_of_a_pair_are_those_of_the_truth(pairs):
    row = rows(pairs / "out")["a"]
    assert (row["state"], row["points"], row["ok"]) == ("done", "2", "2")
    assert float(row["tre_max_mm"]) < 1.0
    assert float(row["folding"]) == 0.0
    assert float(row["inverse_residual_mm"]) < 0.5
    with (pairs / "out" / "sub-a" / "ct" / "sub-a_desc-matches_points.tsv").open() as stream:
        found = list(csv.DictReader(stream, delimiter="\t"))
    for point in found:
        there, here = (np.array([float(point[f"{side}_{axis}"]) for axis in "xyz"]) for side in ("moving", "fixed"))
        np.testing.assert_allclose(there - here, STEP * SPACING, atol=0.7)


def test_images_of_a_pair_lie_on_the_fixed_voxels(pairs):
    place = pairs / "out" / "sub-a" / "ct"
    for name in ("warped_ct", "jacobian_ct", "labels_dseg"):
        image = nibabel.load(place / f"sub-a_space-fixed_desc-{name}.nii.gz")
        assert image.shape == (32, 32, 32)
        np.testing.assert_allclose(image.affine, affine(), atol=1e-5)
    inverse = SimpleITK.ReadTransform(str(place / "sub-a_from-fixed_to-moving_mode-image_xfm.h5"))
    forth = SimpleITK.ReadTransform(str(place / "sub-a_from-moving_to-fixed_mode-image_xfm.h5"))
    point = (10.0, 5.0, 140.0)
    np.testing.assert_allclose(inverse.TransformPoint(forth.TransformPoint(point)), point, atol=0.3)


def test_a_broken_scan_costs_its_own_rows(pairs):
    found = rows(pairs / "out")
    assert found["d"]["state"] == "failed"
    assert "cut.nii.gz" in found["d"]["reason"]
    assert [found[name]["state"] for name in "bc"] == ["done", "done"]


def test_what_was_computed_is_logged(pairs):
    out = pairs / "out"
    assert "refining" in (out / "cases" / "a" / "log.txt").read_text()
    result = json.loads((out / "cases" / "a" / "result.json").read_text())
    assert all((out / path).is_file() for path in result["outputs"])
    assert result["provenance"]["model"] == "builtin"
    assert len(result["inputs"]) == 5  # the mask stands in two columns


def test_a_store_that_cannot_be_written_to_stops_the_run(pairs, tmp_path):
    plan = cohort.Plan(
        pairs / "pairs.csv", tmp_path / "out", matcher=HAND_MADE, workers=1, threads=1, store=tmp_path / "store"
    )  # fmt: skip
    with small_disk(plan.store, "size=1m") as disk:
        disk.again("ro")
        with pytest.raises(OutputError, match=r"cannot keep features.*cannot be written to"):
            cohort.run(plan)
    assert not list((tmp_path / "out" / "cases").glob("*/result.json"))
    assert cohort.run(replace(plan, store=None)).counts == {"done": 3, "failed": 1}
