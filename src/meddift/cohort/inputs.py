"""What was read for a case: told apart cheaply by size and time, and for certain by content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from meddift.cohort.cases import Case


def stamp(paths: Iterable[str]) -> str:
    """Digest of size and time of change of files; changes whenever one of them may have other content.

    Args:
        paths: Files, or folders whose files count.
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
    """sha256 of a file, or of names and contents of the files of a folder, 64 hexadecimal digits."""
    if not Path(path).is_dir():
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return _digest([(os.path.relpath(file, path), content_digest(file)) for file in _files(path)])


def case_key(case: Case, settings: Mapping[str, Any]) -> str:
    """Digest of all that decides a result but the content of files.

    Args:
        case: What is done.
        settings: How; the same for all cases of a plan.
    """
    told = {"case": {**case.as_dict(), "refusal": ""}, "settings": settings}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _files(path: str) -> list[str]:
    if not Path(path).is_dir():
        return [path]
    return sorted(str(file) for file in Path(path).rglob("*") if file.is_file())


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
