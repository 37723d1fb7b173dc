"""Manifest: an append-only file of JSON lines, one for each finished scan or case."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from meddift.errors import OutputError
from meddift.system.atomic import reason_of


def manifest_name(number: int, count: int) -> str:
    """Name of the manifest of shard `number` of `count`; each shard has its own, as shared disks lack safe locks."""
    return "manifest.jsonl" if count == 1 else f"manifest-{number:04d}-of-{count:04d}.jsonl"


class Manifest:
    """A file of JSON lines to which one process appends.

    Args:
        path: The file; created if it does not exist.

    Raises:
        OutputError: if it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            size = os.fstat(self._file).st_size
            if size:
                os.lseek(self._file, size - 1, os.SEEK_SET)
                if os.read(self._file, 1) != b"\n":  # the last line is incomplete: a killed process or a full disk
                    os.write(self._file, b"\n")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {reason_of(error)}") from error

    def add(self, content: Mapping[str, Any]) -> None:
        """Append a line.

        Args:
            content: The line, ready for JSON.

        Raises:
            OutputError: if it cannot be written.
        """
        line = json.dumps(content, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise OutputError(f"cannot write {self._path}: the disk is full")
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {reason_of(error)}") from error

    def __enter__(self) -> Self:
        """Return the manifest itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        os.close(self._file)


def read_manifests(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of all manifests of a folder; incomplete lines are skipped.

    Raises:
        OutputError: if a manifest cannot be read.
    """
    for path in sorted(folder.glob("manifest*.jsonl")):
        try:
            with path.open("rb") as stream:
                for line in stream:
                    try:
                        content = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(content, dict):
                        yield content
        except OSError as error:
            raise OutputError(f"cannot read {path}: {reason_of(error)}") from error


def latest_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Name of each case -> its newest line in all manifests of a folder."""
    found: dict[str, dict[str, Any]] = {}
    for line in read_manifests(folder):
        name = line.get("case")
        if isinstance(name, str) and (name not in found or line.get("at", 0) >= found[name].get("at", 0)):
            found[name] = line
    return found
