"""`convert-points`, `info`, `models`, `demo`, and the command as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import typer.main
from command_scans import Case, affine, textured, write_csv, write_nifti
from typer.testing import CliRunner

import meddift

Run = Any


def test_version_and_help(run: Run) -> None:
    assert run(["--version"]).stdout == f"meddift {meddift.__version__}\n"
    text = run(["--help"]).stdout
    for name in ("match", "convert-points", "info", "demo", "models"):
        assert f"\n  {name} " in text
    assert "not a medical device" in text


@pytest.mark.parametrize(
    ("arguments", "named", "where"),
    [
        (["mathc"], "mathc", "meddift --help"),
        (["--bogus"], "--bogus", "meddift --help"),
        (["match", "a.nii"], "MOVING", "meddift match --help"),
        (["match", "a.nii", "b.nii", "-p", "c.csv", "--preset", "papre"], "papre", "meddift match --help"),
        (["warp", "t.h5", "--fil", "3"], "--fil", "meddift warp --help"),
    ],
)
def test_wrong_usage_is_one_sentence_that_says_where_to_look(
    run: Run, arguments: list[str], named: str, where: str
) -> None:
    outcome = run(arguments)
    assert outcome.code == 2
    assert outcome.stderr.startswith("meddift: ")
    assert len(outcome.stderr.splitlines()) == 1
    assert named in outcome.stderr
    assert f"`{where}`" in outcome.stderr


def every_command() -> list[str]:
    """All commands, those of groups as "group command"."""
    from meddift.cli.app import app

    root = typer.main.get_command(app)
    return [
        " ".join(filter(None, (name, inner)))
        for name, command in root.commands.items()  # type: ignore[attr-defined]
        for inner in (getattr(command, "commands", None) or [""])
    ]


@pytest.mark.parametrize("command", every_command())
def test_help_has_everyday_options_first_and_examples_and_fits_a_terminal(command: str, run: Run) -> None:
    text = run([*command.split(), "--help"]).stdout
    assert max(map(len, text.splitlines())) <= 80
    headings = [line for line in text.splitlines() if line and not line.startswith(" ") and line.endswith(":")]
    assert [name for name in headings if name not in ("Reading files:", "Advanced options:")] == [
        heading for heading in ("Arguments:", "Options:", "Examples:") if f"\n{heading}\n" in text
    ]
    examples = [line.split() for line in text.split("\nExamples:\n")[1].splitlines() if line]
    shown = [_command_of(words) for words in examples]
    assert command in shown
    for of, words in zip(shown, examples, strict=True):
        known = set(run([*of.split(), "--help"]).stdout.replace(",", " ").split())
        assert {word for word in words if word.startswith("--")} <= known


def _command_of(words: list[str]) -> str:
    """Which command an example calls; `meddift cohort TABLE` is `meddift cohort run TABLE`."""
    assert words[0] == "meddift"
    found = [name for name in (" ".join(words[1:3]), words[1], f"{words[1]} run") if name in every_command()]
    return found[0]


def test_lists_of_commands_are_not_cut_off(run: Run) -> None:
    for group in [[], *([name] for name in dict.fromkeys(name.split()[0] for name in every_command() if " " in name))]:
        text = run([*group, "--help"]).stdout
        assert max(map(len, text.splitlines())) <= 80
        assert not [line for line in text.splitlines()[1:] if line.endswith("...")]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("meddift re", {"register"}),
        ("meddift match --fixed-", {"--fixed-series", "--fixed-nifti-form"}),
        ("meddift evaluate re", {"report"}),
        ("meddift warp --interpolation ", {"linear", "nearest"}),
        *((f"meddift {command} --hel", {"--help"}) for command in every_command()),
    ],
)
def test_the_shell_completes(words: str, offered: set[str]) -> None:
    """As bash asks: the line, and which of its words is being written."""
    from meddift.cli.app import app

    asked = {"_MEDDIFT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    outcome = CliRunner().invoke(app, [], env=asked, prog_name="meddift")
    assert set(outcome.stdout.split()) == offered


def test_commands_share_their_options(run: Run) -> None:
    """Whatever sets up the engine or reads a scan is called the same everywhere."""
    engine = {"--model", "--preset", "--levels", "--prior", "--search-radius", "--seed", "--device", "--no-store"}
    reading = {"--fixed-series", "--moving-series", "--nifti-form", "--fixed-nifti-form", "--assume-geometry"}
    for command, wanted in (("match", engine | reading), ("register", engine | reading), ("demo", engine)):
        words = set(run([command, "--help"]).stdout.replace(",", " ").split())
        assert wanted <= words, command
    assert reading <= set(run(["warp", "--help"]).stdout.split())


def test_choices_do_not_mind_their_case(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "points.txt"
    source.write_text("point\n1\n10 -20 30\n")
    assert run(["convert-points", source, tmp_path / "a.csv", "--to-space", "LPS"]).code == 0
    assert "space=LPS" in (tmp_path / "a.csv").read_text()


class TestConvertPoints:
    """Frames, labels and missing points from one format to another."""

    def test_transformix_to_slicer(self, tmp_path: Path, run: Run) -> None:
        source, target = tmp_path / "points.txt", tmp_path / "points.mrk.json"
        source.write_text("point\n2\n10 -20 30\n1.5 2.5 3.5\n")
        outcome = run(["convert-points", source, target])
        assert outcome.code == 0, outcome.stderr
        assert outcome.stdout == ""
        markup = json.loads(target.read_text())["markups"][0]
        assert markup["coordinateSystem"] == "LPS"
        assert [point["position"] for point in markup["controlPoints"]] == [[10, -20, 30], [1.5, 2.5, 3.5]]

    def test_voxels_of_a_turned_image_to_world(self, tmp_path: Path, run: Run) -> None:
        matrix = np.array([[0, 0, 2.0, -7], [-1.5, 0, 0, 30], [0, 3.0, 0, 5], [0, 0, 0, 1]])
        image = write_nifti(tmp_path / "scan.nii.gz", textured((5, 6, 7)), matrix)
        source, target = tmp_path / "dirlab.txt", tmp_path / "world.csv"
        source.write_text("1 1 1\n3 2 5\n")
        unnamed = run(["convert-points", source, target])
        assert unnamed.code == 2
        assert "--points-space" in unnamed.stderr
        imageless = run(["convert-points", source, target, "--points-space", "voxel1"])
        assert imageless.code == 2
        assert not target.exists()
        outcome = run(["convert-points", source, target, "--points-space", "voxel1", "--image", image])
        assert outcome.code == 0, outcome.stderr
        rows = [line.split(",") for line in target.read_text().splitlines()[2:]]
        expected = nibabel.affines.apply_affine(matrix, [[0, 0, 0], [2, 1, 4]])
        assert np.array([row[1:4] for row in rows], dtype=float) == pytest.approx(expected)

    def test_extra_columns_and_missing_points_survive(self, tmp_path: Path, run: Run) -> None:
        source, target = tmp_path / "a.csv", tmp_path / "b.csv"
        source.write_text(
            "# meddift points; version=1; space=RAS; unit=mm\nlabel,x,y,z,verdict\ncarina,1,2,3,ok\nlost,,,,outside\n"
        )
        outcome = run(["convert-points", source, target, "--to-space", "lps"])
        assert outcome.code == 0, outcome.stderr
        assert "1 without position" in outcome.stderr
        assert target.read_text().splitlines() == [
            "# meddift points; version=1; space=LPS; unit=mm",
            "label,x,y,z,verdict",
            "carina,-1,-2,3,ok",
            "lost,,,,outside",
        ]
        assert run(["convert-points", source, tmp_path / "c.fcsv"]).code == 0
        assert (tmp_path / "c.fcsv").read_text().splitlines()[-1] == "2,0,0,0,0,0,0,1,1,1,0,lost,verdict=outside,,0,0"
        refused = run(["convert-points", source, tmp_path / "d.txt"])
        assert refused.code == 1
        assert not (tmp_path / "d.txt").exists()

    def test_what_a_format_has_no_room_for_is_said(self, tmp_path: Path, run: Run) -> None:
        source = tmp_path / "a.mrk.json"
        point = {"label": "carina", "description": "ok", "position": [-1, -2, 3]}
        source.write_text(json.dumps({"markups": [{"controlPoints": [point]}]}))
        outcome = run(["convert-points", source, tmp_path / "b.txt"])
        assert outcome.code == 0
        assert "labels are left out" in outcome.stderr
        assert "columns description are left out" in outcome.stderr
        assert (tmp_path / "b.txt").read_text() == "point\n1\n-1 -2 3\n"

    def test_the_source_is_not_overwritten(self, tmp_path: Path, run: Run) -> None:
        source = write_csv(tmp_path / "a.csv", [[1, 2, 3]])
        before = source.read_bytes()
        assert run(["convert-points", source, source]).code == 2
        assert source.read_bytes() == before


class TestInfo:
    """Descriptions in words and as JSON."""

    def test_a_scan(self, tmp_path: Path, run: Run) -> None:
        image = write_nifti(tmp_path / "scan.nii.gz", textured((8, 9, 10)), np.diag([-2.0, -2.0, 3.0, 1.0]))
        content = run(["info", image, "--json"]).json
        assert content["shape"] == [8, 9, 10]
        assert content["spacing_mm"] == pytest.approx([2, 2, 3])
        assert content["orientation"] == "LPS"
        assert content["readable"] is True
        words = run(["info", image]).stdout
        assert "the first to the left, the second to the back, the third to the head" in words
        assert "8 x 9 x 10 voxels" in words

    def test_a_scan_that_cannot_be_matched_is_described_all_the_same(self, tmp_path: Path, run: Run) -> None:
        matrix = affine()
        matrix[0, 1] = 0.9
        image = nibabel.Nifti1Image(textured((8, 9, 10)), matrix)
        image.set_sform(matrix, 1)
        image.set_qform(None, 0)
        nibabel.save(image, tmp_path / "sheared.nii.gz")
        outcome = run(["info", tmp_path / "sheared.nii.gz"])
        assert outcome.code == 0, outcome.stderr
        assert "orthogonal" in outcome.stdout

    def test_points_that_name_no_frame(self, tmp_path: Path, run: Run) -> None:
        (tmp_path / "points.csv").write_text("1,2,3\n4,5,6\n")
        outcome = run(["info", tmp_path / "points.csv"])
        assert outcome.code == 0, outcome.stderr
        assert "give --points-space" in outcome.stdout
        assert "points: 2" in outcome.stdout

    def test_points_against_their_scan(self, case: Case, run: Run) -> None:
        content = run(["info", case.points, "--image", case.fixed, "--json"]).json
        assert content["outside"] == 0
        words = run(["info", case.points, "--image", case.fixed]).stdout
        assert "outside the image: 0" in words

    def test_a_model(self, run: Run) -> None:
        assert run(["info", "maisi-ct-ddpm", "--json"]).json["licence"]["name"] == "NVIDIA Open Model License"
        assert "timestep" in run(["info", "builtin"]).stdout

    def test_neither_file_nor_model(self, run: Run) -> None:
        outcome = run(["info", "nowhere"])
        assert outcome.code == 1
        assert "builtin" in outcome.stderr


class TestModels:
    """The catalogue; what fetching and checking do is tested with the models."""

    def test_list(self, run: Run) -> None:
        listed = {model["name"]: model for model in run(["models", "list", "--json"]).json["models"]}
        assert listed["maisi-ct-ddpm"]["installed"] is False
        assert listed["maisi-mr-rflow"]["licence"]["commercial"] is False
        words = run(["models", "list"]).stdout
        assert "no commercial use" in next(line for line in words.splitlines() if line.startswith("maisi-mr-rflow"))

    def test_a_licence_is_shown_and_must_be_accepted(self, run: Run) -> None:
        outcome = run(["models", "pull", "maisi-mr-rflow"])
        assert outcome.code == 1
        assert "--accept-licence" in outcome.stderr
        assert "commercial" in outcome.stderr

    def test_nothing_is_fetched_offline(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        outcome = run(["models", "pull", "maisi-ct-ddpm", "--accept-licence"])
        assert outcome.code == 1
        assert "HF_HUB_OFFLINE" in outcome.stderr

    def test_what_is_not_there_cannot_be_verified_or_imported(self, tmp_path: Path, run: Run) -> None:
        assert run(["models", "verify", "maisi-ct-ddpm"]).code == 1
        outcome = run(["models", "import", "maisi-ct-ddpm", "--from", tmp_path])
        assert outcome.code == 1
        assert str(tmp_path) in outcome.stderr
        assert run(["models", "pull", "builtin"]).code == 1

    def test_show_says_what_is_not_known(self, run: Run) -> None:
        words = run(["models", "show", "maisi-ct-ddpm"]).stdout
        assert "not installed" in words or "installed: no" in words
        assert "recorded at first use" in words


@pytest.fixture(scope="module")
def result() -> Any:
    """A coarse phantom, and the hand-made level alone, near to where points were: quick, not good. Made once."""
    import meddift_lab.synthetic as synthetic
    from meddift_lab.demo import run_demo

    whole = synthetic.phantom_pair

    def coarse(seed: int, **settings: Any) -> Any:
        return whole(seed, spacing_mm=5.0, crop_mm=0.0, thickness_mm=5.0, **settings)

    options: dict[str, Any] = {"levels": ("mind",), "prior": "identity", "search_radius_mm": 10.0, "refine": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "phantom_pair", coarse)
        return run_demo(lambda report: meddift.Matcher(store=False, on_progress=report, **options), count=12)


class TestDemo:
    """The demo on a small phantom and without a network; the real one is run by `make demo`."""

    @pytest.fixture
    def small(self, result: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the command get the small result."""
        monkeypatch.setattr("meddift_lab.demo.run_demo", lambda matcher_with, **settings: result)

    @pytest.mark.usefixtures("small")
    def test_files_numbers_and_table(self, tmp_path: Path, run: Run) -> None:
        out = tmp_path / "demo"
        outcome = run(["demo", "--out", out, "--points", "12"])
        assert outcome.code == 0, outcome.stderr
        assert sorted(path.name for path in out.iterdir()) == [
            "fixed-points.mrk.json", "fixed.nii.gz", "found-points.mrk.json", "matches.json", "matches.png",
            "moving.nii.gz", "true-points.mrk.json",
        ]  # fmt: skip
        for row in ("not moving", "best affine", "meddift"):
            assert row in outcome.stdout
        content = json.loads((out / "matches.json").read_text())
        # The comparison, computed here once more from the files for Slicer.
        start, goal = (meddift.read_points(out / f"{name}-points.mrk.json") for name in ("fixed", "true"))
        still = np.linalg.norm(goal.positions - start.positions, axis=1)
        comparison = content["demo"]["comparison_mm"]
        assert comparison["not moving"]["mean"] == pytest.approx(still.mean(), abs=1e-3)
        assert comparison["best affine"]["mean"] < comparison["not moving"]["mean"]
        assert comparison["meddift"]["n"] == 12
        found = meddift.read_points(out / "found-points.mrk.json")
        assert found.labels == start.labels
        errors = np.linalg.norm(found.positions - goal.positions, axis=1)
        assert content["tre_mm"]["max"] == pytest.approx(np.nanmax(errors), abs=1e-3)
        # The scans lie where the points say.
        fixed = meddift.read_volume(out / "fixed.nii.gz")
        assert fixed.grid.contains(start.positions).all()

    def test_a_folder_that_cannot_be_made_is_found_out_at_once(self, tmp_path: Path, run: Run) -> None:
        outcome = run(["demo", "--out", tmp_path / "none" / "demo"])
        assert outcome.code == 1
        assert "no folder" in outcome.stderr
        (tmp_path / "file").write_text("")
        assert run(["demo", "--out", tmp_path / "file"]).code == 1

    def test_without_weights_nothing_is_left(self, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(*args: Any, **kwargs: Any) -> None:
            raise meddift.MeddiftError("no weights")

        monkeypatch.setattr("meddift_lab.synthetic.phantom_pair", missing)
        assert run(["demo", "--out", tmp_path / "demo"]).code == 1
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_leaves_no_half_demo(
        self, tmp_path: Path, run: Run, small: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import errno

        def full(*args: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("meddift.system.atomic.os.fsync", full)
        outcome = run(["demo", "--out", tmp_path / "demo", "--points", "5"])
        assert outcome.code == 1
        assert "the disk is full" in outcome.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_real_scan(self, case: Case, tmp_path: Path, run: Run) -> None:
        outcome = run(["demo", "--scan", case.folder / "none.nii.gz", "--out", tmp_path / "demo"])
        assert outcome.code == 1
        assert "none.nii.gz" in outcome.stderr
        assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("arguments", "code"), [(["models", "list"], 0), (["info", "nowhere.nii"], 1), (["match"], 2)]
)
def test_the_process_ends_with_its_code_after_threads_and_handlers_with_all_output(
    arguments: list[str], code: int
) -> None:
    program = (
        "import atexit, sys, threading, time; from meddift.cli import main\n"
        "def late():\n"
        "    while 'meddift.cli.app' not in sys.modules: time.sleep(0.01)\n"  # the command has begun
        "    time.sleep(0.5); sys.stdout.write('thread ' + 'x' * 100_000 + chr(10))\n"
        "    atexit.register(lambda: print('handler'))\n"
        "threading.Thread(target=late).start(); main()"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == code
    lines = done.stdout.splitlines()
    assert "thread " + "x" * 100_000 in lines
    assert lines[-1] == "handler"
