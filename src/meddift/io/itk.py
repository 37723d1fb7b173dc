"""Helpers for SimpleITK: errors as one sentence, warnings in the log, geometry and pixel types."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import flip_affine_ras_lps

logger = logging.getLogger(__name__)

_redirecting = threading.Lock()


@dataclass
class Messages:
    """What C++ libraries wrote to the error stream.

    Attributes:
        text: All of it; filled when the block ends.
    """

    text: str = ""


@contextmanager
def captured_messages() -> Iterator[Messages]:
    """Catch what ITK and its libraries write to the process's error stream, and log it at level DEBUG.

    Some of them report damaged data there and nowhere else, so callers must look at what was said.

    Yields:
        `Messages`; its text is complete once the block has ended.
    """
    messages = Messages()
    with _redirecting, tempfile.TemporaryFile() as sink:
        if sys.stderr is not None:
            sys.stderr.flush()
        try:
            saved = os.dup(2)
        except OSError:  # a service without an error stream: nothing can be written there either
            yield messages
            return
        try:
            os.dup2(sink.fileno(), 2)
            yield messages
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            sink.seek(0)
            messages.text = sink.read().decode("utf-8", errors="replace")
            for line in messages.text.splitlines():
                logger.debug("%s", line)


def one_sentence(error: BaseException) -> str:
    """The part of a SimpleITK error that says what happened, as one sentence.

    Args:
        error: An exception raised by SimpleITK, whose text is a C++ trace of several lines.

    Returns:
        One line that ends with a full stop.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The first line names the C++ source file, the last one of the rest the innermost cause.
    useful = [line for line in lines if not line.startswith("Exception thrown")] or lines
    line = re.sub(r"^.*?ERROR:\s*", "", useful[-1]) if useful else type(error).__name__
    line = re.sub(r"^\w+\(0x[0-9a-f]+\):\s*", "", line)
    line = re.sub(r"^(\[nrrd\]\s*)?_?\w*:\s+(?=\w)", "", line)
    return line.rstrip(" .") + "."


def affine_of(image: Any) -> NDArray[np.float64]:
    """Affine of a SimpleITK image or reader.

    Args:
        image: SimpleITK.Image or ImageFileReader of three or more dimensions; the first three are used.

    Returns:
        (4, 4) float64, voxel index to world RAS mm.
    """
    n = image.GetDimension()
    direction = np.asarray(image.GetDirection(), dtype=np.float64).reshape(n, n)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(image.GetSpacing()[:3], dtype=np.float64)
    affine[:3, 3] = image.GetOrigin()[:3]
    return flip_affine_ras_lps(affine)


def pixel_kind(pixel_type: str) -> tuple[np.dtype[Any], str]:
    """Type and kind of the values of a SimpleITK image.

    Args:
        pixel_type: What `GetPixelIDTypeAsString` says.

    Returns:
        The numpy type of one component, and "scalar", "vector" or "complex".
    """
    kind = "vector" if "vector" in pixel_type else "complex" if "complex" in pixel_type else "scalar"
    bits = int(re.findall(r"(\d+)-bit", pixel_type)[0]) if "-bit" in pixel_type else 64
    family = "f" if "float" in pixel_type or kind == "complex" else "u" if "unsigned" in pixel_type else "i"
    return np.dtype(f"{family}{bits // 8}"), kind
