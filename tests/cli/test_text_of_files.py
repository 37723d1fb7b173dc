"""Text of headers and names of files at the command line: every alphabet, every locale, nothing a terminal obeys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "io"))
from dicom_files import series

ESCAPES = "Head\x1b[31m\x07 \u202etest"


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    program = [sys.executable, "-c", "from meddift.cli import main; main()", *arguments]
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHONIO"))}
    return subprocess.run(program, capture_output=True, env={**variables, **environment}, check=False)


LOCALES = [
    {"LC_ALL": "C.UTF-8"},
    {"LC_ALL": "C"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii"},
]


@pytest.mark.parametrize("environment", LOCALES)
def test_a_description_is_shown_and_chosen_under_any_locale(tmp_path, environment):
    text = "Thorax nativ für Ärzte 胸"
    series(tmp_path / "a", SpecificCharacterSet="ISO_IR 192", SeriesDescription=text)
    series(tmp_path / "b", SeriesInstanceUID="1.2.3.2")
    done = _run("info", str(tmp_path), **environment)
    assert done.returncode == 0, done.stderr
    # Where the stream claims to know ASCII only, Typer takes the claim for a mistake and writes UTF-8.
    encoding = "latin-1" if environment.get("PYTHONIOENCODING") == "latin-1" else "utf-8"
    assert text.encode(encoding, errors="backslashreplace") in done.stdout
    for wanted in (text, text.upper()):
        if len(environment) == 3:
            continue  # such a Python cannot be given these letters: they arrive as bytes of no meaning
        done = _run("info", str(tmp_path), "--series", wanted, "--json", **environment)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["details"]["description"] == text


def test_escapes_in_headers_do_not_reach_the_terminal(tmp_path):
    series(tmp_path / "a", SpecificCharacterSet="ISO_IR 192", SeriesDescription=ESCAPES)
    series(tmp_path / "b", SpecificCharacterSet="ISO_IR 192", SeriesDescription=ESCAPES, SeriesInstanceUID="1.2.3.2")
    for arguments in (
        ["info", str(tmp_path)],
        ["info", str(tmp_path / "a")],
        ["info", str(tmp_path), "--series", "x"],
    ):
        done = _run(*arguments)
        told = done.stdout + done.stderr
        assert b"Head\\x1b[31m" in told
        assert not set(told) & {0x1B, 0x07}
        assert "\u202e".encode() not in told
    done = _run("info", str(tmp_path / "a"), "--json")
    assert not set(done.stdout) & {0x1B, 0x07}
    assert json.loads(done.stdout)["details"]["description"] == ESCAPES


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux only")
def test_names_of_files_that_are_no_text(tmp_path):
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.arange(120.0).reshape(4, 5, 6), np.eye(4)), tmp_path / "scan.nii")
    odd = os.fsencode(tmp_path) + b"/\xff\x1b[2J.nii"
    os.rename(tmp_path / "scan.nii", odd)  # noqa: PTH104
    for environment in LOCALES:
        for more in ([], ["--json"]):
            done = _run("info", os.fsdecode(odd), *more, **environment)
            assert done.returncode == 0, done.stderr
            assert b"\x1b" not in done.stdout
        told = json.loads(done.stdout)
        assert told["shape"] == [4, 5, 6]
        assert os.fsencode(told["path"]) == odd
    done = _run("info", os.fsdecode(odd) + "2")
    assert done.returncode == 1
    assert b"\x1b" not in done.stderr


def test_names_longer_than_the_file_system_allows():
    for name in ("a" * 5000, "a" * 300 + ".nii.gz", "b" * 300 + "/scan.nii"):
        done = _run("info", name)
        assert done.returncode == 1
        assert b"internal" not in done.stderr
        assert len(done.stderr) < 600


def test_info_tells_scans_transforms_and_points_apart_by_what_they_are(tmp_path):
    import SimpleITK as sitk  # noqa: N813

    affine = sitk.AffineTransform(3)
    affine.SetTranslation((1, 2, 3))
    sitk.WriteTransform(affine, str(tmp_path / "a.tfm"))
    sitk.WriteTransform(affine, str(tmp_path / "a.txt"))
    (tmp_path / "points.txt").write_text("point\n1\n1 2 3\n")
    series(tmp_path / "scan")
    for name in ("a.tfm", "a.txt"):
        told = json.loads(_run("info", str(tmp_path / name), "--json").stdout)
        assert told["format"] == "transform"
        # LPS (1, 2, 3) is RAS (-1, -2, 3).
        assert told["parts"][0]["shift_mm"] == [-1, -2, 3]
    assert json.loads(_run("info", str(tmp_path / "points.txt"), "--json").stdout)["count"] == 1
    assert json.loads(_run("info", str(tmp_path / "scan" / "IM000.dcm"), "--json").stdout)["format"] == "DICOM"


def test_commands_write_through_the_functions_that_escape():
    """`say`, `complain`, `warn` and `show`; Typer's own `echo` writes whatever a file holds."""
    folder = Path(__file__).parents[2] / "src" / "meddift" / "cli"
    for module in folder.glob("*.py"):
        text = module.read_text("utf-8")
        assert module.name == "failures.py" or ("typer.echo(" not in text and "typer.secho(" not in text), module.name
