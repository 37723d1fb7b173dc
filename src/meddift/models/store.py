"""The store: meddift's folder of converted weights, with a record of where each file came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from meddift.errors import OutputError, WeightsCorruptError
from meddift.models.spec import ModelSpec
from meddift.system.atomic import atomic_write, json_text
from meddift.system.homes import data_folder

_CHUNK = 1 << 22
_HASHES = "hashes.json"


@dataclass(frozen=True)
class StoredFile:
    """One weights file in the store, and where it came from.

    Attributes:
        name: Published name.
        sha256: Of the published file.
        bytes: Size of the published file.
        source: "huggingface" or "import".
        repository: Where it was published, "" if imported.
        revision: Commit it was taken from, "" if imported.
        converted: File name in the store's weights folder.
        converted_sha256: Of that file.
    """

    name: str
    sha256: str
    bytes: int
    source: str
    repository: str
    revision: str
    converted: str
    converted_sha256: str


def weights_folder() -> Path:
    """Where converted weights lie, named by role and sha256 of the published file, shared by all models."""
    return data_folder() / "weights"


def provenance_path(spec: ModelSpec) -> Path:
    """The file that says which weights a model uses and where they came from."""
    return data_folder() / "models" / spec.name / "provenance.json"


def read_provenance(spec: ModelSpec) -> dict[str, StoredFile]:
    """Role -> stored file; empty if nothing of this model is stored.

    Raises:
        WeightsCorruptError: if the provenance file is damaged.
    """
    try:
        path = provenance_path(spec)
    except OutputError:  # nobody can have stored anything where there is no folder for it
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {str(role): StoredFile(**entry) for role, entry in entries.items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsCorruptError(
            f"{path} is damaged ({error}); delete it and pull or import {spec.name} again"
        ) from error


def write_provenance(spec: ModelSpec, files: Mapping[str, StoredFile]) -> None:
    """Record which weights a model uses, and under which licence they were taken."""
    record = {
        "model": spec.name,
        "licence": asdict(spec.licence),
        "files": {role: asdict(file) for role, file in sorted(files.items())},
    }
    with atomic_write(provenance_path(spec), make_folder=True) as temporary:
        temporary.write_text(json_text(record), encoding="utf-8")


def file_sha256(path: Path, *, fresh: bool = False) -> str:
    """sha256 of a file, 64 hexadecimal digits; remembered in the store until the file's size or times change.

    Args:
        path: The file.
        fresh: Read it anew even if its hash is remembered.

    Raises:
        OSError: if it cannot be read.
    """
    stamp = path.stat()
    place = str(path.resolve())
    key = [place, stamp.st_size, stamp.st_mtime_ns, stamp.st_ctime_ns, stamp.st_ino]
    known = _remembered()
    entry = known.get(place)
    if not fresh and isinstance(entry, dict) and entry.get("file") == key and isinstance(entry.get("sha256"), str):
        return str(entry["sha256"])
    state = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    known[place] = {"file": key, "sha256": state.hexdigest()}
    # Only saves time: where it cannot be written, files are hashed again.
    with suppress(OSError), atomic_write(data_folder() / _HASHES, make_folder=True) as temporary:
        temporary.write_text(json.dumps(known), encoding="utf-8")
    return state.hexdigest()


def _remembered() -> dict[str, Any]:
    """Hashes computed earlier; empty if there are none or they cannot be read."""
    try:
        known = json.loads((data_folder() / _HASHES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
