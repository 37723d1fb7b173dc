"""Damaged transform files: each is read or refused in a sentence; nothing dies, hangs or takes memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from harness import fuzz
from transform_seeds import TOKENS, seeds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of time and memory are those of Linux")

READER = "meddift.io.transforms:read_transform"


@pytest.mark.parametrize("kind", sorted(TOKENS))
def test_damaged_transforms_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    faults = fuzz(READER, seeds(tmp_path)[kind], count=400, tokens=TOKENS[kind])
    assert faults == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(TOKENS))
def test_very_many_damaged_transforms_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    faults = fuzz(READER, seeds(tmp_path)[kind], count=60_000, first=1_000_000, tokens=TOKENS[kind])
    assert faults == []
