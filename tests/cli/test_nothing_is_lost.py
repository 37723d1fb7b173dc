"""Nothing of the user's is overwritten, lost, or half replaced, whatever paths, signals and disks are like."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_scans import Case, Outcome, textured, write_csv, write_nifti

Run = Callable[[list[str]], Outcome]
posix = pytest.mark.skipif(os.name != "posix", reason="as POSIX has it")


def points(folder: Path, name: str = "points.csv") -> Path:
    return write_csv(folder / name, np.array([[1.0, 2, 3], [4, 5, 6]]))


class TestOutputsAreNoInputs:
    def spelled(self, folder: Path, source: Path) -> list[Path]:
        (folder / "link").symlink_to(source)
        os.link(source, folder / "hard.csv")
        (folder / "around").symlink_to(folder)
        return [
            source,
            folder / "." / source.name,
            folder / "link",
            folder / "hard.csv",
            folder / "around" / source.name,
        ]

    @posix
    def test_by_no_spelling(self, tmp_path: Path, run: Run) -> None:
        source = points(tmp_path)
        before = source.read_bytes()
        for target in self.spelled(tmp_path, source):
            outcome = run(["convert-points", source, target, "--points-format", "meddift", "--to-space", "lps"])
            assert (outcome.code, "is also an input" in outcome.stderr) == (2, True), target
        assert source.read_bytes() == before

    def test_nor_what_belongs_to_an_input(self, tmp_path: Path, run: Run) -> None:
        write_nifti(tmp_path / "scan.nii.gz", textured((20, 20, 20)))
        transform = tmp_path / "A.tfm"
        transform.write_text(
            "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
            "Parameters: 1 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0\n"
        )
        (tmp_path / "A.transform.json").write_text("{}")
        outcome = run(["warp", transform, "-p", points(tmp_path), "-o", tmp_path / "A.transform.json"])
        assert (outcome.code, "is also an input" in outcome.stderr) == (2, True)
        outcome = run(["warp", transform, "-p", points(tmp_path), "-o", transform, "--points-format", "meddift"])
        assert (outcome.code, "is also an input" in outcome.stderr) == (2, True)

    def test_prior_model_and_weights(self, case: Case, run: Run) -> None:
        prior = case.folder / "A.tfm"
        prior.write_text("a transform")
        outcome = run(case.arguments("--prior", str(prior), "--points-format", "meddift", out=prior))
        assert outcome.code == 2
        assert prior.read_text() == "a transform"
        weights = case.folder / "weights"
        weights.mkdir()
        (weights / "unet.csv").write_text("weights")
        outcome = run(case.arguments("--weights", str(weights), out=weights / "unet.csv"))
        assert (outcome.code, "lies in the input folder" in outcome.stderr) == (2, True)
        assert (weights / "unet.csv").read_text() == "weights"

    def test_voxels_that_a_header_names(self, tmp_path: Path, run: Run) -> None:
        from meddift.cli.outputs import Outputs
        from meddift.errors import OptionsError

        header = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\n"
        (tmp_path / "scan.mhd").write_text(header + "ElementDataFile = voxels.nii\n")
        (tmp_path / "voxels.nii").write_bytes(b"x")
        with pytest.raises(OptionsError, match="also an input"):
            Outputs(inputs=(tmp_path / "scan.mhd",)).check([tmp_path / "voxels.nii"])

    @posix
    def test_two_outputs_in_one_file_by_another_spelling(self, tmp_path: Path) -> None:
        from meddift.cli.outputs import Outputs
        from meddift.errors import OptionsError

        (tmp_path / "link.csv").symlink_to("found.csv")
        with pytest.raises(OptionsError, match="asked for twice"):
            Outputs(inputs=()).check([tmp_path / "found.csv", tmp_path / "link.csv"])


class TestFoldersOfOutput:
    def test_demo_keeps_its_hands_off_a_folder_of_the_user(self, tmp_path: Path, run: Run) -> None:
        scan = write_nifti(tmp_path / "fixed.nii.gz", textured((20, 20, 20)))
        before = scan.read_bytes()
        outcome = run(["demo", "--scan", scan, "--out", tmp_path])
        assert (outcome.code, "were not made by this command" in outcome.stderr) == (1, True)
        assert scan.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["fixed.nii.gz"]

    def test_nor_takes_its_own_result_for_its_input(self, tmp_path: Path, run: Run) -> None:
        (tmp_path / "matches.json").write_text('{"demo": {}}')
        scan = write_nifti(tmp_path / "fixed.nii.gz", textured((20, 20, 20)))
        before = scan.read_bytes()
        outcome = run(["demo", "--scan", scan, "--out", tmp_path])
        assert (outcome.code, "is also an input" in outcome.stderr) == (2, True)
        assert scan.read_bytes() == before

    @pytest.mark.parametrize("command", ["run", "ablate"])
    def test_evaluations_too(self, tmp_path: Path, run: Run, command: str) -> None:
        listed = tmp_path / "cases.csv"
        listed.write_text("name,fixed,moving,points,truth\n")
        (tmp_path / ".tmp-mine").write_text("the user's")
        outcome = run(["evaluate", command, "--data", f"pairs:{listed}", "--out", tmp_path])
        assert outcome.code in (1, 2)
        assert listed.read_text() == "name,fixed,moving,points,truth\n"
        assert {path.name for path in tmp_path.iterdir()} == {"cases.csv", ".tmp-mine"}

    def test_an_own_folder_is_taken_up_again(self, tmp_path: Path) -> None:
        from meddift.errors import OutputError
        from meddift_lab.running.commands import remember_command
        from meddift_lab.running.folder import claim_run_folder

        remember_command(tmp_path / "new", ["meddift", "evaluate", "run"])
        (tmp_path / "new" / "notes.txt").write_text("mine")
        claim_run_folder(tmp_path / "new")
        (tmp_path / "stopped" / "cases" / "one").mkdir(parents=True)
        claim_run_folder(tmp_path / "stopped")
        (tmp_path / "other" / "results").mkdir(parents=True)
        (tmp_path / "other" / "results" / "mine.json").write_text("{}")
        with pytest.raises(OutputError, match="new or an empty folder"):
            claim_run_folder(tmp_path / "other")

    def test_temporary_files_of_others_in_the_folder_of_a_run_stay(self, tmp_path: Path) -> None:
        from meddift.system.temporary import sweep_tree, temporary_path

        (tmp_path / "cases").mkdir()
        kept = [tmp_path / ".tmp-notes", tmp_path / "cases" / ".tmp-backup", temporary_path(tmp_path / "cases" / "a")]
        for path in kept:
            path.write_text("x")
        child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
        of_ended = temporary_path(tmp_path / "cases" / "b")
        name = of_ended.name.replace(f"{os.getpid():08x}", f"{int(child.stdout):08x}")
        of_ended = of_ended.with_name(name)
        of_ended.write_text("x")
        sweep_tree(tmp_path)
        assert all(path.exists() for path in kept)
        assert not of_ended.exists()


class TestNamesAreCheckedBeforeTheWork:
    @pytest.mark.parametrize("name", ["x.txt", "x", "x.jpg.gz"])
    def test_pictures(self, case: Case, run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setattr("meddift.io.read_volume", lambda *_a, **_k: pytest.fail("a scan was read"))
        outcome = run(case.arguments("--picture", str(case.folder / name)))
        assert (outcome.code, "pictures are written to .png" in outcome.stderr) == (2, True)

    def test_points_of_unknown_format(self, case: Case, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("meddift.io.read_volume", lambda *_a, **_k: pytest.fail("a scan was read"))
        outcome = run(case.arguments(out=case.folder / "found.dat"))
        assert (outcome.code, "cannot tell the format" in outcome.stderr) == (2, True)

    def test_a_format_without_missing_points_for_one_outside(self, case: Case, run: Run) -> None:
        far = write_csv(case.folder / "far.csv", [*case.positions.tolist(), [5000, 5000, 5000]])
        outcome = run(case.arguments(points=far, out=case.folder / "results" / "found.txt"))
        assert outcome.code == 1
        assert ".mrk.json, .fcsv or .csv" in outcome.stderr
        assert case.results() == []


@posix
class TestStreams:
    def test_standard_output(self, tmp_path: Path) -> None:
        arguments = ["convert-points", points(tmp_path), "/dev/stdout", "--points-format", "elastix", "-q"]
        done = subprocess.run([sys.executable, "-m", "meddift", *map(str, arguments)], capture_output=True, text=True)
        assert done.stdout == "point\n2\n-1 -2 3\n-4 -5 6\n"
        assert done.returncode == 0
        assert stat.S_ISLNK(os.lstat("/dev/stdout").st_mode)

    def test_a_pipe(self, tmp_path: Path, run: Run) -> None:
        os.mkfifo(tmp_path / "pipe.txt")
        got: list[str] = []
        reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe.txt").read_text()))
        reader.start()
        assert run(["convert-points", points(tmp_path), tmp_path / "pipe.txt"]).code == 0
        reader.join(10)
        assert got == ["point\n2\n-1 -2 3\n-4 -5 6\n"]

    def test_through_a_link(self, tmp_path: Path, run: Run) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "out.txt").symlink_to("real/points")
        assert run(["convert-points", points(tmp_path), tmp_path / "out.txt"]).code == 0
        assert (tmp_path / "out.txt").is_symlink()
        assert (tmp_path / "real" / "points").read_text().startswith("point\n2\n")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
    @pytest.mark.parametrize("arguments", [["models", "list", "--json"], ["models", "list"], ["info", "points.csv"]])
    def test_standard_output_that_is_full(self, tmp_path: Path, arguments: list[str]) -> None:
        points(tmp_path)
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "meddift", *arguments],
                stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "cannot write to standard output: the disk is full" in done.stderr

    def test_standard_output_that_is_closed(self, tmp_path: Path) -> None:
        command = f"{sys.executable} -m meddift convert-points {points(tmp_path)} {tmp_path / 'o.txt'} >&- 2>&-"
        assert subprocess.run(command, shell=True).returncode == 0
        assert (tmp_path / "o.txt").read_text().startswith("point\n2\n")


#: `meddift convert-points` whose writing waits: before anything takes its place, between the two files, or after.
SLOW = """
import os, sys, time
import meddift.cli.outputs as outputs
import meddift.system.atomic as atomic
place, source, folder = sys.argv[1:4]
def here():
    sys.stdout.write("here\\n"); sys.stdout.flush()
def wait(seconds=60.0):
    here()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
def slow(path, name):
    path.write_text("new " + name)
    if place == "writing" and name == "b":
        wait()
    if place == "library" and name == "b":
        try:
            wait()
        except KeyboardInterrupt:
            pass
replace, count = os.replace, []
def between(a, b):
    replace(a, b)
    count.append(b)
    if place == "between" and len(count) == 1:
        wait(1.0)
os.replace = between
commit = outputs.Outputs.commit
def two(self):
    from pathlib import Path
    self.required = {Path(folder) / n: (lambda path, n=n: slow(path, n)) for n in "ab"}
    if place == "optional":
        self.optional = {Path(folder) / "c": lambda path: wait()}
        outputs.note_wanted([Path(folder) / n for n in "abc"])
    return commit(self)
outputs.Outputs.commit = two
from meddift.cli import main
sys.argv = ["meddift", "convert-points", source, folder + "/unused.csv"]
main()
"""


@posix
class TestSignals:
    def stopped(self, tmp_path: Path, place: str, *signals: int) -> tuple[int, str, dict[str, str]]:
        folder = tmp_path / "out"
        folder.mkdir()
        for name in "ab":
            (folder / name).write_text(f"old {name}")
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, place, str(points(tmp_path)), str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        for number in signals:
            process.send_signal(number)
            time.sleep(0.1)
        _, stderr = process.communicate(timeout=30)
        return process.returncode, stderr, {path.name: path.read_text() for path in folder.iterdir()}

    OLD = {"a": "old a", "b": "old b"}  # noqa: RUF012
    NEW = {"a": "new a", "b": "new b"}  # noqa: RUF012

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_while_writing_the_old_files_stay(self, tmp_path: Path, number: int) -> None:
        found = self.stopped(tmp_path, "writing", number)
        assert found == (130, "meddift: interrupted; nothing was written\n", self.OLD)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_while_files_take_their_places_all_of_them_do(self, tmp_path: Path, number: int) -> None:
        code, stderr, files = self.stopped(tmp_path, "between", number)
        assert (code, files) == (130, self.NEW)
        assert f"interrupted; written: {tmp_path / 'out' / 'a'}, {tmp_path / 'out' / 'b'}" in stderr

    def test_what_was_written_and_what_not_is_said(self, tmp_path: Path) -> None:
        code, stderr, files = self.stopped(tmp_path, "optional", signal.SIGINT)
        assert (code, files) == (130, self.NEW)
        assert f"not written: {tmp_path / 'out' / 'c'}" in stderr.replace(f"{tmp_path}/out/unused.csv, ", "")

    def test_a_library_that_swallows_it_does_not_go_on(self, tmp_path: Path) -> None:
        code, _, files = self.stopped(tmp_path, "library", signal.SIGINT)
        assert (code, files) in [(130, self.OLD), (130, self.NEW)]

    @pytest.mark.parametrize("place", ["writing", "between"])
    def test_twice_means_at_once_and_leaves_no_mixture(self, tmp_path: Path, place: str) -> None:
        started = time.monotonic()
        code, stderr, files = self.stopped(tmp_path, place, signal.SIGINT, signal.SIGINT)
        assert code == 130
        assert files == (self.OLD if place == "writing" else self.NEW)
        assert "Abort" not in stderr
        assert time.monotonic() - started < 30

    def test_ignored_ones_stay_ignored(self, tmp_path: Path) -> None:
        source = points(tmp_path)
        command = f"trap '' HUP; exec {sys.executable} -c \"$0\" between {source} {tmp_path}"
        process = subprocess.Popen(
            ["sh", "-c", command, SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert (tmp_path / "a").read_text() == "new a"


class TestTerminal:
    EVIL = "a\x1b[2Jb\x9b31m\u202ec"

    def test_labels_and_names_never_reach_it_raw(self, tmp_path: Path, run: Run) -> None:
        source = tmp_path / "points.mrk.json"
        point = {"label": self.EVIL, "position": [1, 2, 3], "description": self.EVIL}
        source.write_text(json.dumps({"markups": [{"controlPoints": [point]}]}))
        for arguments in (
            ["info", source],
            ["info", source, "--json"],
            ["convert-points", source, tmp_path / "x.dat"],
        ):
            outcome = run(arguments)
            for letter in "\x1b\x9b\u202e":
                assert letter not in outcome.stdout + outcome.stderr
        assert json.loads(run(["info", source, "--json"]).stdout)["labels"] == [self.EVIL]
        outcome = run(["info", tmp_path / f"not there {self.EVIL}"])
        assert "\x1b" not in outcome.stderr
        assert r"\x1b[2J" in outcome.stderr

    def test_a_table_of_matches(self, capsys: pytest.CaptureFixture[str]) -> None:
        from meddift.cli.terminal import make_table, show

        table = make_table(self.EVIL, [("point", False)])
        table.add_row(self.EVIL + "[red]")
        show(table, self.EVIL, to_stdout=True)
        shown = capsys.readouterr().out
        assert not set("\x1b\x9b\u202e") & set(shown)
        assert shown.count(r"a\x1b[2Jb\x9b31m\u202ec") == 3
        assert "[red]" in shown


class TestWithoutPlaces:
    def arguments(self, tmp_path: Path) -> list[str]:
        return [sys.executable, "-m", "meddift", "convert-points", str(points(tmp_path)), str(tmp_path / "o.txt")]

    @posix
    def test_no_home_directory_and_no_temporary_folder(self, tmp_path: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MEDDIFT", "XDG", "HOME", "TMP"))}
        environment |= {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"}
        done = subprocess.run(self.arguments(tmp_path), env=environment, capture_output=True, text=True)
        assert (done.returncode, (tmp_path / "o.txt").exists()) == (0, True), done.stderr
        listed = [sys.executable, "-m", "meddift", "models", "list"]
        done = subprocess.run(listed, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    @posix
    @pytest.mark.parametrize("arguments", [["models", "list"], ["models", "show", "maisi-ct-ddpm"], ["cache", "show"]])
    def test_a_user_without_any_home_directory(self, tmp_path: Path, arguments: list[str]) -> None:
        code = """
import os, pwd, sys
def unknown(number): raise KeyError(number)
pwd.getpwuid = unknown
for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "MEDDIFT_HOME", "MEDDIFT_CACHE"): os.environ.pop(name, None)
from meddift.cli import main
main()
"""
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert list(tmp_path.iterdir()) == []  # no folder called ~

    def test_a_store_that_cannot_be_used_costs_nothing(self, case: Case, run: Run, monkeypatch) -> None:
        (case.folder / "file").write_text("no folder")
        monkeypatch.setenv("MEDDIFT_CACHE", str(case.folder / "file"))
        arguments = [argument for argument in case.arguments() if argument != "--no-store"]
        outcome = run(arguments)
        assert outcome.code == 0
        assert "features are not kept" in outcome.stderr
        assert case.results() == ["found.csv"]
        shutil.rmtree(case.folder / "results")
