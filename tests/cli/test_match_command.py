"""`meddift match` from file to file, without a network: the hand-made level alone."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from command_scans import SHIFT, SIZE, Case, write_csv, write_nifti

Run = Any


def test_points_are_found_and_written_in_every_format(case: Case, run: Run) -> None:
    picture = case.folder / "results" / "found.png"
    outcome = run(case.arguments("--truth", str(case.truth), "--json", "--picture", str(picture)))
    assert outcome.code == 0, outcome.stderr
    content = outcome.json
    assert {"points", "timing", "peak_memory_bytes", "provenance", "tre_mm"} <= content.keys()
    assert set(content["points"][0]) == {
        "label", "fixed", "moving", "similarity", "margin", "inverse_error_mm", "verdict", "reason",
        "codes",
    }  # fmt: skip
    found = np.array([row["moving"] for row in content["points"]])
    assert np.abs(found - case.positions - SHIFT).max() < 0.5
    assert np.array([row["fixed"] for row in content["points"]]) == pytest.approx(case.positions)
    # Errors are those of the answers, computed here once more.
    errors = np.linalg.norm(found - case.positions - SHIFT, axis=1)
    assert content["tre_mm"]["mean"] == pytest.approx(errors.mean(), abs=1e-3)
    assert content["tre_mm"]["n"] == 4
    assert content["peak_memory_bytes"] > 50e6
    # The file holds the same as the JSON.
    lines = case.out.read_text().splitlines()
    assert lines[0] == "# meddift points; version=1; space=RAS; unit=mm"
    assert lines[1].startswith("label,x,y,z,similarity,margin,inverse_error_mm,verdict,reason")
    assert [float(v) for v in lines[2].split(",")[1:4]] == pytest.approx(found[0], abs=1e-6)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert case.results() == ["found.csv", "found.png"]


def test_slicer_files_carry_verdicts_in_lps(case: Case, run: Run) -> None:
    out = case.out.with_name("found.mrk.json")
    outcome = run(case.arguments(out=out))
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout == ""
    markup = json.loads(out.read_text())["markups"][0]
    assert markup["coordinateSystem"] == "LPS"
    first = markup["controlPoints"][0]
    assert first["label"] == "p1"
    assert first["position"] == pytest.approx((case.positions[0] + SHIFT) * [-1, -1, 1], abs=0.5)
    assert first["description"].split(":")[0] in ("ok", "uncertain")
    # Not a terminal: the table goes to stderr.
    assert "4 points" in outcome.stderr
    assert "p4" in outcome.stderr


def test_quiet_says_nothing(case: Case, run: Run) -> None:
    outcome = run(case.arguments("--quiet"))
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")


def test_points_outside_the_fixed_scan_are_reported_and_never_moved_to_its_border(case: Case, run: Run) -> None:
    low = nibabel.load(case.fixed).affine[:3, 3]
    positions = np.vstack([case.positions, low - [30, 0, 0]])
    points = write_csv(case.folder / "more.csv", positions)
    outcome = run(case.arguments("--json", points=points))
    assert outcome.code == 0, outcome.stderr
    row = outcome.json["points"][4]
    assert row["verdict"] == "outside"
    assert row["moving"] is None
    assert "fixed" in row["reason"]
    written = case.out.read_text().splitlines()[6].split(",")
    assert written[:4] == ["p5", "", "", ""]


def test_the_number_of_threads_changes_nothing_but_time(case: Case, run: Run) -> None:
    usual, alone = (run(case.arguments("--json", *more)) for more in ((), ("--threads", "1")))
    assert alone.code == 0, alone.stderr
    places = [[row["moving"] for row in outcome.json["points"]] for outcome in (usual, alone)]
    np.testing.assert_allclose(places[0], places[1], atol=1e-3)
    assert run(case.arguments("--threads", "0")).code == 2


def test_missing_points_stay_missing(case: Case, run: Run) -> None:
    text = case.points.read_text() + "nowhere,,,\n"
    case.points.write_text(text)
    outcome = run(case.arguments("--json"))
    assert outcome.code == 0, outcome.stderr
    row = outcome.json["points"][4]
    assert (row["label"], row["fixed"], row["moving"], row["verdict"]) == ("nowhere", None, None, "outside")


def test_a_format_without_missing_points_is_an_honest_partial_result(case: Case, run: Run) -> None:
    low = nibabel.load(case.fixed).affine[:3, 3]
    points = write_csv(case.folder / "more.csv", np.vstack([case.positions, low - [30, 0, 0]]))
    out = case.out.with_suffix(".txt")
    # Known before the work: the point is outside the fixed scan.
    early = run(case.arguments("--json", points=points, out=out))
    assert early.code == 1
    assert "cannot say that a point has no position" in early.stderr
    # Known only afterwards: the moving scan ends before the place where the fourth point is looked for.
    moving = nibabel.load(case.moving)
    cut = write_nifti(case.folder / "cut.nii.gz", np.asarray(moving.dataobj)[:, :, : SIZE // 2 - 2], moving.affine)
    for options in (["--json"], []):
        late = run(case.arguments(*options, moving=cut, out=out))
        assert late.code == 3
        assert "cannot say that a point has no position" in late.stderr
        assert "p1" in late.stdout + late.stderr
    assert not out.exists()
    # All points, found or not, are in a table beside it, and nothing that stood there is replaced.
    assert case.results() == ["found.txt.2.csv", "found.txt.csv"]
    assert "found.txt.2.csv instead" in late.stderr
    for name in case.results():
        rows = list(csv.DictReader((out.parent / name).read_text().splitlines()[1:]))
        assert [row["label"] for row in rows] == ["p1", "p2", "p3", "p4"]
        verdicts = [row["verdict"] for row in rows]
        assert "outside" in verdicts
        assert [row["x"] == "" for row in rows] == [verdict == "outside" for verdict in verdicts]


def test_that_labels_are_left_out_is_said(case: Case, run: Run) -> None:
    outcome = run(case.arguments("--json", out=case.out.with_suffix(".txt")))
    assert outcome.code == 0, outcome.stderr
    assert "found.txt: this format holds coordinates only; labels are left out" in outcome.stderr
    assert "left out" not in run(case.arguments("--json")).stderr


def test_voxel_points_belong_to_the_fixed_scan_and_voxel_truth_to_the_moving(case: Case, run: Run) -> None:
    fixed, moving = nibabel.load(case.fixed).affine, nibabel.load(case.moving).affine

    def voxels(positions: np.ndarray, matrix: np.ndarray) -> str:
        index = nibabel.affines.apply_affine(np.linalg.inv(matrix), positions)
        return "\n".join(",".join(f"{v:.4f}" for v in row) for row in index) + "\n"

    points, truth = case.folder / "voxels.csv", case.folder / "true_voxels.csv"
    points.write_text(voxels(case.positions, fixed))
    truth.write_text(voxels(case.positions + SHIFT, moving))
    outcome = run(case.arguments("--json", "--truth", str(truth), "--points-space", "voxel", points=points))
    assert outcome.code == 0, outcome.stderr
    assert np.array([row["fixed"] for row in outcome.json["points"]]) == pytest.approx(case.positions, abs=1e-3)
    assert outcome.json["tre_mm"]["max"] < 0.5


def test_truth_beyond_the_moving_scan_does_not_count(case: Case, run: Run) -> None:
    truth = case.positions + SHIFT
    truth[0] = [500, 0, 0]
    path = write_csv(case.folder / "beyond.csv", truth)
    outcome = run(case.arguments("--json", "--truth", str(path)))
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["tre_mm"]["n"] == 3
    assert outcome.json["truth_outside_moving"]["n"] == 1


def test_dry_run_says_what_would_be_done_and_writes_nothing(case: Case, run: Run) -> None:
    outcome = run(case.arguments("--dry-run", "--json"))
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["model"] == "builtin"
    assert outcome.json["memory_bytes"] > 0
    words = run(case.arguments("--dry-run"))
    assert "memory: about " in words.stdout
    assert "look for 4 point(s) within 15 mm" in words.stdout
    assert case.results() == []


def test_a_dry_run_says_that_very_many_points_are_aligned_at_nodes(case: Case, run: Run, tmp_path: Path) -> None:
    for count, said in ((5_001, True), (5_000, False)):
        many = tmp_path / "many.csv"
        many.write_text("x,y,z\n" + "1,2,3\n" * count)
        files = [str(case.fixed), str(case.moving), "--points", str(many)]
        told = run(["match", *files, "--points-space", "ras", "--dry-run"]).stdout
        assert ("at the nodes of a grid" in told) == said


def test_a_transform_file_as_prior(case: Case, run: Run) -> None:
    import SimpleITK as sitk  # noqa: N813

    path = case.folder / "prior.tfm"
    shift = sitk.TranslationTransform(3, (SHIFT * [-1, -1, 1]).tolist())
    sitk.WriteTransform(shift, str(path))
    outcome = run(
        [
            *("match", case.fixed, case.moving, "--points", case.points, "--json", "--levels", "mind", "--no-store"),
            *("--prior", path, "--search-radius", "6"),
        ]
    )
    assert outcome.code == 0, outcome.stderr
    found = np.array([row["moving"] for row in outcome.json["points"]])
    assert np.abs(found - case.positions - SHIFT).max() < 0.5


def test_the_same_scan_twice_is_said(case: Case, run: Run) -> None:
    outcome = run(replace(case, moving=case.fixed).arguments("--json", out=None))
    assert outcome.code == 0, outcome.stderr
    found = np.array([row["moving"] for row in outcome.json["points"]])
    np.testing.assert_allclose(found, case.positions, atol=1e-3)
    words = run(replace(case, moving=case.fixed).arguments(out=None)).stdout
    assert "The fixed and the moving scan are the same" in words
    assert "are the same" not in run(case.arguments(out=None)).stdout


def test_priors_and_label_maps_are_read_as_the_scans_are(case: Case, run: Run) -> None:
    """Files with two geometries, 300 mm apart: refused, until it is said which one holds."""
    grid = nibabel.load(case.fixed)

    def with_two_forms(data: np.ndarray, name: str, intent: str = "none") -> Path:
        image = nibabel.Nifti1Image(data, grid.affine)
        image.header.set_intent(intent)
        image.set_qform(grid.affine, 1)
        other = grid.affine.copy()
        other[:3, 3] += 300
        image.set_sform(other, 1)
        nibabel.save(image, case.folder / name)
        return case.folder / name

    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[20:23, 14:17, 10:13] = 5
    points = with_two_forms(labels, "lesions.nii.gz")
    prior = with_two_forms(np.zeros((*grid.shape, 1, 3), dtype=np.float32), "prior.nii.gz", "vector")
    base = ["match", case.fixed, case.moving, "--levels", "mind", "--no-store", "--dry-run"]
    for more, file in ((["--points", points], points), (["--points", case.points, "--prior", prior], prior)):
        refused = run([*base, *more])
        assert refused.code == 1
        assert f"{file} states two geometries" in " ".join(refused.stderr.split())
        assert run([*base, *more, "--fixed-nifti-form", "qform"]).code == 0
    out = case.folder / "centre.csv"
    assert run(["convert-points", points, out, "--nifti-form", "qform"]).code == 0
    row = out.read_text().splitlines()[-1].split(",")
    assert [float(value) for value in row[1:4]] == pytest.approx((grid.affine @ [21, 15, 11, 1])[:3], abs=1e-3)


def test_a_picture_that_fails_does_not_cost_the_points(case: Case, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no fonts here")

    monkeypatch.setattr("meddift.pipeline.picture.draw_matches", broken)
    outcome = run(case.arguments("--picture", str(case.folder / "results" / "found.png")))
    assert outcome.code == 3
    assert "no fonts here" in outcome.stderr
    assert case.results() == ["found.csv"]


def test_stored_features_give_the_same_answers(case: Case, run: Run) -> None:
    arguments = [argument for argument in case.arguments("--json") if argument != "--no-store"]
    first, second = run(arguments), run(arguments)
    assert first.code == second.code == 0
    assert first.json["points"] == second.json["points"]


def test_without_files_the_table_goes_to_stdout_a_line_a_point(case: Case, run: Run) -> None:
    outcome = run(case.arguments(out=""))
    assert outcome.code == 0, outcome.stderr
    assert case.results() == []
    for label in ("p1", "p2", "p3", "p4"):
        assert sum(line.split()[:1] == [label] for line in outcome.stdout.splitlines()) == 1
    assert "written" not in outcome.stderr
    written = run(case.arguments())
    assert written.stdout == ""
    assert f"written: {case.out}" in written.stderr


def test_the_same_scan_twice_is_said_once(case: Case, run: Run) -> None:
    outcome = run(case.arguments(out="", moving=case.fixed))
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.count("are the same") == 1


class TestWrongUsage:
    """Exit code 2, one sentence, before the scans are read."""

    def expect(self, outcome: Any, words: str, case: Case, *, code: int = 2) -> None:
        assert outcome.code == code
        assert outcome.stdout == ""
        assert words in outcome.stderr
        assert "Traceback" not in outcome.stderr
        assert case.results() == []

    def test_output_without_known_format(self, case: Case, run: Run) -> None:
        out = case.out.with_suffix(".xyz")
        outcome = run(case.arguments(out=out))
        self.expect(outcome, "cannot tell the format", case)
        assert str(out.name) in outcome.stderr

    def test_output_that_is_an_input(self, case: Case, run: Run) -> None:
        before = case.points.read_bytes()
        self.expect(run(case.arguments(out=case.points)), "would be overwritten", case)
        assert case.points.read_bytes() == before

    def test_two_outputs_in_one_file(self, case: Case, run: Run) -> None:
        self.expect(run(case.arguments("--picture", str(case.out))), "asked for twice", case)

    @pytest.mark.parametrize(
        ("option", "value", "words"),
        [
            ("--levels", "up9", "up9"),
            ("--levels", ",", "--levels is a list"),
            ("--prior", "afine", "none, identity, affine or a transform file"),
            ("--search-radius", "-3", "above 0"),
            ("--timestep", "5000", "timesteps 0 to 999"),
            ("--preset", "papers", "papers"),
            ("--seed", "-1", "--seed"),
            ("--device", "gpu7", "gpu7"),
        ],
    )
    def test_options_that_make_no_sense(self, case: Case, run: Run, option: str, value: str, words: str) -> None:
        self.expect(run(case.arguments(option, value)), words, case)

    def test_an_unknown_model_is_named_with_the_known_ones(self, case: Case, run: Run) -> None:
        self.expect(run(case.arguments("--model", "biultin")), "Did you mean 'builtin'?", case, code=1)


def test_scans_turned_and_oblique_give_the_same_answers(case: Case, run: Run) -> None:
    """Frames end to end: the fixed scan in another orientation, and points in LPS instead of RAS."""
    image = nibabel.load(case.fixed)
    turned = image.as_reoriented(nibabel.orientations.axcodes2ornt(("P", "I", "R")))
    path = write_nifti(case.folder / "turned.nii.gz", np.asanyarray(turned.dataobj), turned.affine)
    points = write_csv(case.folder / "lps.csv", case.positions * [-1, -1, 1], space="LPS")
    outcome = run(case.arguments("--json", fixed=path, points=points))
    assert outcome.code == 0, outcome.stderr
    found = np.array([row["moving"] for row in outcome.json["points"]])
    assert np.abs(found - case.positions - SHIFT).max() < 0.5


def test_scans_that_do_not_agree_are_said_once_above_the_table() -> None:
    from types import SimpleNamespace

    from meddift.cli.match_report import remarks
    from meddift.matching.verdict import Reason

    pair: Any = SimpleNamespace(
        fixed=SimpleNamespace(digest="a"), moving=SimpleNamespace(digest="b"), without_prior="too few matches agree"
    )
    doubts = (Reason.of("no_agreement"), Reason.of("border"))
    matches: Any = SimpleNamespace(reasons=(doubts, doubts, ()))
    (sentence,) = remarks(pair, matches)
    assert "could not be brought into agreement" in sentence
    assert sentence.endswith("too few matches agree")
    assert remarks(pair, SimpleNamespace(reasons=((), (Reason.of("border"),)))) == []  # type: ignore[arg-type]
