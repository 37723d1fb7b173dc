"""Digests of input files: a fast one of sizes and modification times, and an exact one of the contents."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from meddift.cohort.cases import Case


def stamp(paths: Iterable[str]) -> str:
    """Digest of sizes and modification times of files; it changes whenever a content may have changed.

    Args:
        paths: Files, or folders, of which all files are included.

    Returns:
        Digest as hexadecimal text. A file that cannot be read is included as missing.
    """
    listed = []
    for path in paths:
        for file in _files(path):
            try:
                status = os.stat(file)  # noqa: PTH116 - a string in, and a million of them
                listed.append((file, status.st_size, status.st_mtime_ns))
            except OSError:
                listed.append((file, -1, 0))
    return _digest(listed)


def content_digest(path: str) -> str:
    """SHA-256 of a file, or of names and contents of all files of a folder, as 64 hexadecimal digits."""
    if not Path(path).is_dir():
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return _digest([(os.path.relpath(file, path), content_digest(file)) for file in _files(path)])


def case_key(case: Case, settings: Mapping[str, Any]) -> str:
    """Digest of everything that determines a result, except the contents of the files.

    Args:
        case: The case.
        settings: Settings of the plan, the same for all its cases, ready for JSON.
    """
    told = {"case": {**case.as_dict(), "refusal": ""}, "settings": settings}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _files(path: str) -> list[str]:
    if not Path(path).is_dir():
        return [path]
    return sorted(str(file) for file in Path(path).rglob("*") if file.is_file())


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
