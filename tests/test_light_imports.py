"""What is loaded when: heavy libraries only where something is computed. About modules, not about seconds."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import meddift

HEAVY = {"fastapi", "torch", "monai", "SimpleITK", "nibabel", "scipy", "matplotlib", "huggingface_hub", "safetensors"}


def modules_after(code: str, *, cwd: Path | None = None) -> set[str]:
    """Top-level names in sys.modules after running code in a fresh Python."""
    ending = (
        "\nfinally:\n    import json, sys\n"
        "    sys.stderr.write('\\nMODULES ' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    indented = "\n".join("    " + line for line in code.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", f"try:\n{indented}\nexcept SystemExit as end:\n    assert not end.code, end{ending}"],
        capture_output=True,
        text=True,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.rpartition("MODULES ")[2]))


def command(*arguments: str) -> str:
    return f"import sys\nsys.argv = {['meddift', *arguments]!r}\nfrom meddift.cli import main\nmain()"


@pytest.mark.parametrize(
    "code",
    [
        "import meddift",
        command("--help"),
        command("--version"),
        command("match", "--help"),
        command("view", "--help"),
        command("models", "list"),
        command("models", "show", "builtin"),
        command("info", "maisi-ct-ddpm"),
        command("datasets", "list"),
        command("evaluate", "run", "--help"),
        command("evaluate", "methods"),
    ],
    ids=[
        "import",
        "help",
        "version",
        "match help",
        "view help",
        "models list",
        "models show",
        "info model",
        "datasets list",
        "evaluate help",
        "evaluate methods",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert not modules_after(code) & HEAVY


def test_help_loads_neither_numpy_nor_rich() -> None:
    assert not modules_after(command("--help")) & {"numpy", "rich"}
    assert "numpy" not in modules_after("import meddift")


def test_points_are_converted_without_anything_heavy(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("point\n1\n1 2 3\n")
    assert not modules_after(command("convert-points", "in.txt", "out.mrk.json"), cwd=tmp_path) & HEAVY
    assert not modules_after(command("info", "out.mrk.json"), cwd=tmp_path) & HEAVY


def test_an_image_is_described_without_torch(tmp_path: Path) -> None:
    import nibabel
    import numpy as np

    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    assert not modules_after(command("info", "scan.nii.gz"), cwd=tmp_path) & {"torch", "monai", "matplotlib"}


def test_a_plan_is_made_without_torch(tmp_path: Path) -> None:
    import nibabel
    import numpy as np

    data = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "scan.nii.gz")
    (tmp_path / "points.txt").write_text("point\n1\n-9 -9 9\n")
    match = command("match", "scan.nii.gz", "scan.nii.gz", "--points", "points.txt", "--dry-run")
    assert not modules_after(match, cwd=tmp_path) & {"torch", "monai", "matplotlib"}


def packages() -> list[str]:
    found = ["meddift"]
    found += [module.name for module in pkgutil.walk_packages(meddift.__path__, "meddift.") if module.ispkg]
    return found


@pytest.mark.parametrize("name", packages())
def test_public_names_are_listed_and_exist(name: str) -> None:
    package = importlib.import_module(name)
    assert list(package.__all__) == sorted(package.__all__)
    for public in package.__all__:
        assert getattr(package, public) is not None
    with pytest.raises(AttributeError):
        _ = package.a_name_that_does_not_exist
    if hasattr(package, "_HOME"):
        assert set(package._HOME) <= set(package.__all__)
        assert set(dir(package)) >= set(package.__all__)


def test_the_public_surface_stays_small() -> None:
    assert len(meddift.__all__) <= 22
