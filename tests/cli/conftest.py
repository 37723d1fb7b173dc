"""Fixtures of the command line: two small scans, and the command run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_scans import SHIFT, SIZE, SPACING, Case, Outcome, affine, textured, write_csv, write_nifti
from typer.testing import CliRunner


@pytest.fixture
def case(tmp_path: Path) -> Case:
    data = textured()
    (tmp_path / "results").mkdir()
    step = (SHIFT / SPACING).astype(int)
    moving = np.roll(data, tuple(step), axis=(0, 1, 2))
    middle = affine()[:3, 3] + SPACING * (SIZE - 1) / 2
    positions = middle + np.array([[0, 0, 0], [15, 9, -12], [-18, 6, 3], [9, -15, 12.0]])
    return Case(
        folder=tmp_path,
        fixed=write_nifti(tmp_path / "fixed.nii.gz", data),
        moving=write_nifti(tmp_path / "moving.nii.gz", moving),
        points=write_csv(tmp_path / "points.csv", positions),
        truth=write_csv(tmp_path / "truth.csv", positions + SHIFT),
        positions=positions,
    )


@pytest.fixture
def run() -> Callable[[list[str]], Outcome]:
    """Run `meddift` with arguments."""

    def call(arguments: list[str]) -> Outcome:
        from meddift.cli.app import app

        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call
