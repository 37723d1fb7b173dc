"""Damaged images are refused with a `MeddiftError`, quickly and without much memory; or read, where they can be."""

from __future__ import annotations

import sys

import pytest
from harness import fuzz
from image_seeds import TOKENS, seeds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of time and memory are those of Linux")

READERS = dict.fromkeys(("nifti", "mgh", "nrrd", "metaimage"), "image_readers:scan") | {
    "dicom": "image_readers:dicom_file",
    "compressed_dicom": "image_readers:dicom_file",
}


@pytest.mark.parametrize("kind", READERS)
def test_some_damage(kind: str) -> None:
    # Compressed pixels go through a process of their own, half a second each.
    count = 10 if kind == "compressed_dicom" else 500
    assert fuzz(READERS[kind], seeds()[kind], count=count, tokens=TOKENS[kind]) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_much_damage(kind: str) -> None:
    count = 500 if kind == "compressed_dicom" else 60_000
    assert fuzz(READERS[kind], seeds()[kind], count=count, first=10**6, tokens=TOKENS[kind]) == []
