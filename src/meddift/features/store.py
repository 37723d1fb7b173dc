"""`FeatureStore`: pyramids on disk, found again by what they were made of."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from meddift.errors import OptionsError, OutputError
from meddift.features.describe_stored import STORED_NAME
from meddift.features.pyramid import Pyramid
from meddift.features.stored_file import read_pyramid, write_pyramid
from meddift.system.atomic import atomic_write, write_json
from meddift.system.homes import cache_folder
from meddift.system.temporary import sweep_store

_LOGGER = logging.getLogger(__name__)

#: Bytes that stored pyramids may take by default: some fifty chests with the `builtin` model.
DEFAULT_BUDGET = 20_000_000_000

_KEY = re.compile(r"[0-9a-f]{64}")
_NOTE = re.compile(r"[A-Za-z0-9-]+")


class FeatureStore:
    """Pyramids on disk, one folder each, named by the digest of all that decided their content.

    A stored pyramid comes back bit by bit as it was (float32), so that a repeated question gets the same answer.
    Several processes may share a folder: files appear whole or not at all. A damaged file counts as missing.
    A folder that cannot be written to is said once, in the log, and then done without.

    Args:
        folder: Where pyramids are kept. None takes `pyramids` in the folder that the environment variable
            MEDDIFT_CACHE names, or else in the user's cache folder.
        budget_bytes: What all of them may take; beyond it, those that were used longest ago are removed.

    Attributes:
        folder: As above.
        budget_bytes: As above.

    Raises:
        OptionsError: if the budget is negative.
    """

    def __init__(self, folder: Path | str | None = None, *, budget_bytes: int = DEFAULT_BUDGET) -> None:
        if budget_bytes < 0:
            raise OptionsError(f"the budget of the feature store must be 0 bytes or more, got {budget_bytes}")
        self.budget_bytes = int(budget_bytes)
        self._writable = True
        try:
            self.folder = cache_folder() / "pyramids" if folder is None else Path(folder)
        except OutputError as error:
            # A folder in which there is nothing, and in which nothing can be made.
            self.folder, self._writable = Path(os.devnull, "pyramids"), False
            _LOGGER.warning("features are not kept, going on without: %s", error)

    def __repr__(self) -> str:
        """Folder."""
        return f"FeatureStore({str(self.folder)!r})"

    # ------------------------------------------------------------------ in and out

    def get(self, key: str) -> Pyramid | None:
        """The stored pyramid of this key, or None where there is none or it is damaged (the log says so).

        Args:
            key: What `pyramid_key` returns.
        """
        path = self._path(key)
        if not self._is_there(path):
            return None
        try:
            pyramid = read_pyramid(path, key)
        except Exception as error:  # whatever is wrong with a stored copy, the original can be made again
            _LOGGER.warning("the stored features in %s cannot be read and are computed again: %s", path, error)
            return None
        with suppress(OSError):  # the time of last use; a folder may be readable only
            os.utime(path)
        return pyramid

    def put(self, pyramid: Pyramid) -> bool:
        """Keep a pyramid under its own digest, and remove old ones beyond the budget.

        Returns:
            Whether it was kept; if not, the log says once why.
        """
        if not self._writable:
            return False
        path = self._path(pyramid.digest)
        try:
            with atomic_write(path, make_folder=True) as temporary:
                write_pyramid(temporary, pyramid)
        except Exception as error:  # safetensors has errors of its own for a full disk; the pyramid is here anyhow
            if not _replaces_mapped_files() and self._is_there(path):
                return True  # another process is using it, and it holds the same
            self._writable = False
            _LOGGER.warning("features are not kept in %s, going on without: %s", self.folder, error)
            return False
        self._evict(keep=path)
        return True

    def get_or_make(self, key: str, make: Callable[[], Pyramid]) -> Pyramid:
        """The stored pyramid of a key, or else a new one, which is then kept.

        Args:
            key: What `pyramid_key` returns.
            make: Computes the pyramid of this key.
        """
        found = self.get(key)
        if found is None:
            found = make()
            self.put(found)
        return found

    def note(self, key: str, name: str) -> Any:
        """What was noted beside the pyramid of a key, or None where there is nothing or it cannot be read."""
        path = self._note_path(key, name)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def put_note(self, key: str, name: str, content: Any) -> bool:
        """Keep something small beside the pyramid of a key, for as long as that is kept.

        Args:
            key: As for `get`.
            name: Letters, digits and hyphens.
            content: Ready for JSON.

        Returns:
            Whether it was kept: not where there is no such pyramid, or the folder cannot be written to.
        """
        if not self._is_there(self._path(key)):
            return False
        try:
            write_json(content, self._note_path(key, name))
        except OSError as error:
            _LOGGER.info("%s is not kept in %s: %s", name, self.folder, error)
            return False
        return True

    def _note_path(self, key: str, name: str) -> Path:
        if not _NOTE.fullmatch(name):
            raise OptionsError(f"the name of a note has letters, digits and hyphens only, got {name!r}")
        return self._path(key).parent / f"{name}.json"

    # ------------------------------------------------------------------ housekeeping

    def remove(self, key: str) -> None:
        """Remove the pyramid of a key and what was noted beside it, if it is there and can be removed."""
        with suppress(OSError):
            _remove(self._path(key))

    def size(self) -> int:
        """Bytes that all stored pyramids take."""
        return sum(size for _, size, _ in self._entries())

    def __len__(self) -> int:
        """Number of stored pyramids."""
        return len(self._entries())

    def clear(self, *, unused_days: float = 0.0) -> int:
        """Remove stored pyramids, and nothing else in the folder.

        Args:
            unused_days: Only those that have not been used for so many days.

        Returns:
            Number of pyramids removed.

        Raises:
            OutputError: if one cannot be removed.
        """
        limit = time.time() - unused_days * 24 * 3600.0
        entries = [entry for entry in self._entries() if unused_days == 0 or entry[2] < limit]
        for path, _, _ in entries:
            try:
                _remove(path)
            except OSError as error:
                raise OutputError(f"cannot remove {path}: {error.strerror or error}") from error
        return len(entries)

    def _path(self, key: str) -> Path:
        """File of a key."""
        if not _KEY.fullmatch(key):
            raise OptionsError(f"a key of the feature store is 64 hexadecimal digits, got {key!r}")
        return self.folder / key / STORED_NAME

    def _folders(self) -> list[Path]:
        """The folders of stored pyramids."""
        try:
            return [folder for folder in self.folder.iterdir() if _KEY.fullmatch(folder.name)]
        except OSError:
            return []

    def _is_there(self, path: Path) -> bool:
        """Whether there is a file; none that may not be looked at."""
        try:
            return path.is_file()
        except OSError:
            return False

    def _entries(self) -> list[tuple[Path, int, float]]:
        """(file, bytes, time of last use) of each stored pyramid, the one used longest ago first."""
        entries = []
        for folder in self._folders():
            path = folder / STORED_NAME
            with suppress(OSError):  # another process may have removed it
                status = path.stat()
                entries.append((path, status.st_size, status.st_mtime))
        return sorted(entries, key=lambda entry: entry[2])

    def _evict(self, *, keep: Path) -> None:
        """Remove what a killed run left, then pyramids beyond the budget, never the one at `keep`."""
        for folder in self._folders():
            sweep_store(folder)
        entries = self._entries()
        total = sum(size for _, size, _ in entries)
        for path, size, _ in entries:
            if total <= self.budget_bytes:
                return
            if path != keep:
                with suppress(OSError):
                    _remove(path)
                    total -= size
                    _LOGGER.info("removed the stored features in %s to stay within the budget", path.parent)


def _replaces_mapped_files() -> bool:
    """Whether this system lets a file take the place of one that a process has mapped into its memory."""
    return os.name != "nt"


def _remove(path: Path) -> None:
    """Remove a stored pyramid, the notes beside it and its folder."""
    path.unlink(missing_ok=True)
    for note in path.parent.glob("*.json"):
        if _NOTE.fullmatch(note.stem):
            note.unlink(missing_ok=True)
    with suppress(OSError):  # somebody is just writing a new one there
        path.parent.rmdir()
