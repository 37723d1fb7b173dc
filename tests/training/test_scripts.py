"""The scripts work with the package as it is: each can be imported, and the search that decides finds its points."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from meddift.features import Level, Pyramid
from meddift.geometry import Grid

SCRIPTS = sorted(path.stem for path in (Path(__file__).parents[2] / "training").glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_can_be_imported_and_explains_itself(name, monkeypatch, capsys):
    module = importlib.import_module(name)
    if not hasattr(module, "main"):
        return
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_the_search_of_the_evaluation_finds_what_is_most_similar_everywhere_and_nearby():
    """Descriptors that are unique at each voxel; a twin far away that only the global search may take."""
    from types import SimpleNamespace

    from evaluate import measure

    rng = np.random.default_rng(0)
    grid = Grid((32, 32, 32), np.diag([2.0, 2.0, 2.0, 1.0]))
    features = rng.normal(size=(32, 32, 32, 12)).astype(np.float32)
    moving = features.copy()
    asked, twin = (6, 7, 8), (26, 25, 24)
    moving[twin] = features[asked]
    moving[asked] += 0.3  # less similar than the twin, still the most similar nearby
    places = grid.index_to_world(np.array([asked, (12, 20, 15)], dtype=float))
    first, second = (
        Pyramid((Level("up3", values, grid),), grid, grid, digest=str(i))
        for i, values in enumerate((features, moving))
    )
    task = SimpleNamespace(
        points=SimpleNamespace(positions=places), truth=places, expected=places + np.array([3.0, -2.0, 4.0])
    )
    errors = measure(first, second, task)["errors_mm"]
    assert errors["prior"] == [0.0, 0.0]
    away = float(np.linalg.norm((np.array(twin) - asked) * 2.0))
    assert errors["global"] == [pytest.approx(away, abs=1e-3), 0.0]
