"""What is said beforehand of the features of a scan on disk, against the file."""

from __future__ import annotations

import pytest

from meddift import Matcher
from meddift.pipeline.memory import pyramid_bytes
from texture import lattice, scan


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_it_is_what_the_file_takes(preset, tmp_path) -> None:
    grid = lattice((60, 56, 50))
    with Matcher(preset=preset, levels=("mind",), store=tmp_path, modality="other") as matcher:
        matcher.encode(scan(grid)).encode()
        said = pyramid_bytes(matcher.spec, matcher.extraction, grid)
    (file,) = tmp_path.rglob("*.safetensors")
    assert said == pytest.approx(file.stat().st_size, rel=0.02)
