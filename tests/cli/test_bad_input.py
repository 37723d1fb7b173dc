"""What is wrong with an input is said in one sentence; exit code 1 or 2; nothing is written."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from command_scans import SIZE, Case, affine, textured, write_csv, write_nifti

Run = Any
Damage = Callable[[Case], Path]


def _with_affine(case: Case, matrix: np.ndarray) -> Path:
    return write_nifti(case.folder / "bad.nii.gz", textured(), matrix)


def _not_an_image(case: Case) -> Path:
    path = case.folder / "bad.nii.gz"
    path.write_bytes(b"this is not an image, whatever its name says" * 40)
    return path


def _truncated(case: Case) -> Path:
    path = case.folder / "bad.nii.gz"
    content = case.fixed.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def _flat(case: Case) -> Path:
    return write_nifti(case.folder / "bad.nii.gz", textured((SIZE, SIZE, 1)))


def _series(case: Case) -> Path:
    return write_nifti(case.folder / "bad.nii.gz", np.stack([textured((10, 10, 10))] * 3, axis=-1))


def _color(case: Case) -> Path:
    data = np.zeros((8, 8, 8), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    return write_nifti(case.folder / "bad.nii.gz", data)


def _all_nan(case: Case) -> Path:
    return write_nifti(case.folder / "bad.nii.gz", np.full((10, 10, 10), np.nan, np.float32))


def _constant(case: Case) -> Path:
    return write_nifti(case.folder / "bad.nii.gz", np.full((10, 10, 10), -1000, np.int16))


def _header_with(case: Case, **fields: Any) -> Path:
    """The fixed scan with header fields overwritten in the bytes of the file, as no careful writer would do it."""
    header, rest = (
        bytearray(gzip.decompress(case.fixed.read_bytes())[:348]),
        gzip.decompress(case.fixed.read_bytes())[348:],
    )
    parsed = nibabel.Nifti1Header(bytes(header), check=False)
    for name, value in fields.items():
        parsed[name] = value
    path = case.folder / "bad.nii.gz"
    path.write_bytes(gzip.compress(parsed.binaryblock + rest))
    return path


def _zero_spacing(case: Case) -> Path:
    zero = np.zeros(4)
    return _header_with(case, pixdim=[1, 3, 0, 3, 1, 1, 1, 1], srow_y=zero, sform_code=1, qform_code=0)


def _negative_spacing(case: Case) -> Path:
    return _header_with(case, pixdim=[1, 3, -3, 3, 1, 1, 1, 1], sform_code=0, qform_code=1)


def _sheared(case: Case) -> Path:
    matrix = affine()
    matrix[0, 1] = 0.9
    path = case.folder / "bad.nii.gz"
    image = nibabel.Nifti1Image(textured(), matrix)
    image.set_sform(matrix, 1)
    image.set_qform(None, 0)
    nibabel.save(image, path)
    return path


def _two_geometries(case: Case) -> Path:
    path = case.folder / "bad.nii.gz"
    image = nibabel.Nifti1Image(textured(), affine())
    moved = affine()
    moved[:3, 3] += 20
    image.set_sform(affine(), 1)
    image.set_qform(moved, 1)
    nibabel.save(image, path)
    return path


def _no_geometry(case: Case) -> Path:
    return _header_with(case, sform_code=0, qform_code=0)


SCANS: list[tuple[Damage, str]] = [
    (lambda case: case.folder / "misssing.nii.gz", "does not exist"),
    (_not_an_image, "bad.nii.gz"),
    (_truncated, "bad.nii.gz"),
    (_flat, "2D"),
    (_series, "4D"),
    (_color, "color"),
    (_all_nan, "NaN"),
    (_constant, "constant"),
    (_zero_spacing, "bad.nii.gz"),
    (_negative_spacing, "bad.nii.gz"),
    (_sheared, "orthogonal"),
    (_two_geometries, "qform"),
    (_no_geometry, "bad.nii.gz"),
]


def expect_refusal(outcome: Any, words: str, case: Case) -> None:
    """One clear message, a code that says failure, no output of any kind, and no file."""
    assert outcome.code in (1, 2), (outcome.stdout, outcome.stderr)
    assert outcome.stdout == ""
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "internal error" not in outcome.stderr
    assert outcome.stderr.count("meddift: ") == 1
    assert case.results() == []
    assert [path for path in case.folder.rglob("*") if path.name.startswith(".tmp")] == []


@pytest.mark.parametrize("role", ["fixed", "moving"])
@pytest.mark.parametrize(("damage", "words"), SCANS, ids=lambda value: getattr(value, "__name__", None))
def test_bad_scans(case: Case, run: Run, damage: Damage, words: str, role: str) -> None:
    path = damage(case)
    outcome = run(case.arguments("--json", **{role: path}))
    expect_refusal(outcome, words, case)
    assert path.name in outcome.stderr


def test_a_scan_that_states_two_geometries_is_read_as_told(case: Case, run: Run) -> None:
    path = _two_geometries(case)
    told = run(case.arguments("--json", "--nifti-form", "sform", fixed=path))
    assert told.code == 0, told.stderr
    plain = run(case.arguments("--json", out=case.out.with_name("other.csv")))
    assert told.json["points"] == plain.json["points"]


def _points(text: str, name: str = "bad.csv") -> Damage:
    def write(case: Case) -> Path:
        path = case.folder / name
        path.write_text(text)
        return path

    return write


HEAD = "# meddift points; version=1; space=RAS; unit=mm\nlabel,x,y,z\n"

POINTS: list[tuple[str, Damage, str]] = [
    ("missing", lambda case: case.folder / "none.mrk.json", "none.mrk.json"),
    ("empty", _points(""), "empty"),
    ("no rows", _points(HEAD), "no points"),
    ("only missing", _points(HEAD + "a,nan,nan,nan\nb,,,\n"), "has a position"),
    ("partly nan", _points(HEAD + "a,1,nan,3\n"), "only some coordinates"),
    ("infinite", _points(HEAD + "a,1,inf,3\n"), "not a finite number"),
    ("unknown frame", _points("1.5,2.5,3.5\n4,5,6\n"), "--points-space"),
    ("strange frame", _points(HEAD.replace("RAS", "XYZ") + "a,1,2,3\n"), "XYZ"),
    ("no points at all", _points('{"markups": []}', "bad.mrk.json"), "holds no points"),
    ("broken json", _points('{"markups": [', "bad.mrk.json"), "JSON"),
]


@pytest.mark.parametrize(("damage", "words"), [row[1:] for row in POINTS], ids=[row[0] for row in POINTS])
def test_bad_points(case: Case, run: Run, damage: Damage, words: str) -> None:
    path = damage(case)
    outcome = run(case.arguments("--json", points=path))
    expect_refusal(outcome, words, case)
    assert path.name in outcome.stderr


def test_an_image_in_place_of_points(case: Case, run: Run) -> None:
    expect_refusal(run(case.arguments(points=case.moving)), "moving.nii.gz", case)


def test_an_unknown_frame_is_wrong_usage(case: Case, run: Run) -> None:
    path = _points("1.5,2.5,3.5\n")(case)
    assert run(case.arguments(points=path)).code == 2


def test_a_mix_up_of_frames_stops_with_the_hint(case: Case, run: Run) -> None:
    # Points of a body that lies far from x = y = 0, said to be RAS although they are LPS.
    matrix = affine()
    matrix[:2, 3] += [200, 150]
    far = write_nifti(case.folder / "far.nii.gz", textured(), matrix)
    flipped = write_csv(case.folder / "flipped.csv", (case.positions + np.array([200, 150, 0])) * [-1, -1, 1])
    outcome = run(case.arguments(fixed=far, points=flipped))
    expect_refusal(outcome, "LPS taken for RAS", case)
    assert outcome.code == 2


def test_truth_that_belongs_to_other_points(case: Case, run: Run) -> None:
    truth = write_csv(case.folder / "few.csv", case.positions[:2])
    expect_refusal(run(case.arguments("--truth", str(truth))), "do not belong", case)


class TestWeights:
    """Weights that are missing or are something else; details are tested where they are loaded."""

    def arguments(self, case: Case, folder: Path) -> list[str]:
        arguments = ["match", case.fixed, case.moving, "--points", case.points, "--out", case.out, "--no-store"]
        return [str(part) for part in [*arguments, "--model", "maisi-ct-ddpm", "--weights", folder]]

    def test_missing(self, case: Case, run: Run) -> None:
        outcome = run(self.arguments(case, case.folder / "nowhere"))
        expect_refusal(outcome, "meddift models pull maisi-ct-ddpm", case)

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint" * 100], ids=["empty", "garbage"])
    def test_damaged(self, case: Case, run: Run, content: bytes) -> None:
        folder = case.folder / "weights"
        folder.mkdir()
        for name in ("diff_unet_3d_ddpm.pt", "autoencoder_epoch273.pt"):
            (folder / name).write_bytes(content)
        outcome = run(self.arguments(case, folder))
        expect_refusal(outcome, "weights", case)

    def test_code_in_a_pickle_is_not_run(self, case: Case, run: Run) -> None:
        import pickle

        witness = case.folder / "witness"

        class Payload:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(witness),)

        folder = case.folder / "weights"
        folder.mkdir()
        for name in ("diff_unet_3d_ddpm.pt", "autoencoder_epoch273.pt"):
            (folder / name).write_bytes(pickle.dumps(Payload()))
        expect_refusal(run(self.arguments(case, folder)), "weights", case)
        assert not witness.exists()


class TestOutputs:
    """Outputs that cannot be written."""

    def test_a_folder_that_is_not_there(self, case: Case, run: Run) -> None:
        expect_refusal(run(case.arguments(out=case.folder / "none" / "found.csv")), "no folder", case)

    def test_a_folder_in_place_of_a_file(self, case: Case, run: Run) -> None:
        folder = case.folder / "found.csv"
        folder.mkdir()
        expect_refusal(run(case.arguments(out=folder)), "it is a folder", case)

    @pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that nobody can write to")
    def test_a_read_only_folder_is_found_out_before_the_work(self, case: Case, run: Run) -> None:
        started = time.monotonic()
        expect_refusal(run(case.arguments(out="/proc/self/found.csv")), "cannot write /proc/self/found.csv", case)
        assert time.monotonic() - started < 5

    def test_a_full_disk_leaves_what_was_there(self, case: Case, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        case.out.write_text("from yesterday")

        def full(*args: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("meddift.system.atomic.os.fsync", full)
        outcome = run(case.arguments("--json"))
        assert outcome.code == 1
        assert outcome.stdout == ""
        assert "the disk is full" in outcome.stderr
        assert str(case.out) in outcome.stderr
        assert case.results() == ["found.csv"]
        assert case.out.read_text() == "from yesterday"

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a limit for the size of files")
    def test_a_file_that_the_system_cuts_off_is_not_left(self, case: Case) -> None:
        """No simulation: the system refuses to write a single byte to any file."""
        code = (
            "import resource, signal, sys\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
            "from meddift.cli import main\n"
            "main()\n"
        )
        done = subprocess.run([sys.executable, "-c", code, *case.arguments()], capture_output=True, text=True)
        assert done.returncode == 1
        assert "cannot write" in done.stderr
        assert "Traceback" not in done.stderr
        assert case.results() == []


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another mechanism there")
@pytest.mark.parametrize("stage", ["reading", "matching"])
def test_ctrl_c_leaves_nothing(case: Case, stage: str) -> None:
    """A real SIGINT to a real process, in the middle of its work."""
    where = {
        "reading": "import meddift.io.images as m; name = 'read_volume'",
        "matching": "import meddift.pipeline.pair as m; m = m.Pair; name = 'match'",
    }[stage]
    code = (
        f"{where}\n"
        "import sys, time\n"
        "def wait(*args, **kwargs):\n"
        "    sys.stdout.write('here\\n'); sys.stdout.flush(); time.sleep(60)\n"
        "setattr(m, name, wait)\n"
        "import meddift.io\n"
        "meddift.io.read_volume = wait if name == 'read_volume' else meddift.io.read_volume\n"
        "from meddift.cli import main\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *case.arguments("--quiet")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr == "meddift: interrupted; nothing was written\n"
    assert case.results() == []


def test_a_library_that_swallows_ctrl_c_changes_nothing(case: Case, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise RuntimeError("operation aborted") from None

    monkeypatch.setattr("meddift.pipeline.pair.Pair.match", interrupted)
    outcome = run(case.arguments())
    assert outcome.code == 130
    assert "interrupted; nothing was written" in outcome.stderr
    assert case.results() == []


def test_a_reader_that_has_enough_is_no_error(case: Case) -> None:
    """`meddift ... --json | head -1`: no traceback, no message."""
    process = subprocess.Popen(
        [sys.executable, "-m", "meddift", "models", "list", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait(timeout=30)
    process.stderr.close()


def test_tracebacks_are_for_those_who_ask(case: Case, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = case.arguments(fixed=case.folder / "none.nii.gz")
    assert "Traceback" not in run(missing).stderr
    assert "Traceback" in run(["--debug", *missing]).stderr
    monkeypatch.setenv("MEDDIFT_DEBUG", "1")
    assert "Traceback" in run(missing).stderr


def test_an_error_of_our_own_is_called_one(case: Case, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("meddift.pipeline.pair.Pair.match", broken)
    outcome = run(case.arguments())
    assert outcome.code == 1
    assert "internal error, please report it: ZeroDivisionError" in outcome.stderr
    assert case.results() == []


def test_json_on_stdout_is_one_object_and_nothing_else(case: Case) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "meddift", *case.arguments("--json")], capture_output=True, text=True, check=True
    )
    assert len(json.loads(done.stdout)["points"]) == 4
