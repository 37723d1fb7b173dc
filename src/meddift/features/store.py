"""`FeatureStore`: pyramids on disk, found by the digest of everything they depend on."""

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

#: Default limit of the size of all stored pyramids, bytes.
DEFAULT_BUDGET = 20_000_000_000

_KEY = re.compile(r"[0-9a-f]{64}")
_NOTE = re.compile(r"[A-Za-z0-9-]+")


class FeatureStore:
    """Pyramids on disk, each in a folder named by the digest of everything that it depends on.

    A stored pyramid is read back without loss, so that repeated work gives identical results. Several processes may
    share a folder: files are written atomically. A damaged file counts as missing. If the folder is not writable,
    one warning is logged and nothing is stored.

    Args:
        folder: Folder of the pyramids. None = `pyramids` in the folder named by the environment variable
            MEDDIFT_CACHE, or else in the user's cache folder.
        budget_bytes: Limit of the size of all pyramids, bytes; the least recently used ones beyond it are removed.

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
            # A folder that is empty and cannot be written to.
            self.folder, self._writable = Path(os.devnull, "pyramids"), False
            _LOGGER.warning("features are not kept, going on without: %s", error)

    def __repr__(self) -> str:
        """Folder."""
        return f"FeatureStore({str(self.folder)!r})"

    # ------------------------------------------------------------------ in and out

    def get(self, key: str) -> Pyramid | None:
        """The stored pyramid with this key; None if there is none, or it is damaged (which is logged).

        Args:
            key: Result of `pyramid_key`.
        """
        path = self._path(key)
        if not self._is_there(path):
            return None
        try:
            pyramid = read_pyramid(path, key)
        except Exception as error:  # whatever is wrong with a stored copy, it can be computed again
            _LOGGER.warning("the stored features in %s cannot be read and are computed again: %s", path, error)
            return None
        with suppress(OSError):  # the time of last use; the folder may be read-only
            os.utime(path)
        return pyramid

    def __contains__(self, key: str) -> bool:
        """Whether there is a pyramid with this key; it is not read, and may turn out to be damaged."""
        return self._is_there(self._path(key))

    def put(self, pyramid: Pyramid) -> bool:
        """Store a pyramid under its digest, and remove old ones beyond the budget.

        Returns:
            Whether it was stored; if not, the reason is logged once.
        """
        if not self._writable:
            return False
        path = self._path(pyramid.digest)
        try:
            with atomic_write(path, make_folder=True) as temporary:
                write_pyramid(temporary, pyramid)
        except Exception as error:  # safetensors has its own errors, such as for a full disk; going on is safe
            if not _replaces_mapped_files() and self._is_there(path):
                return True  # another process is using the file, which holds the same
            self._writable = False
            _LOGGER.warning("features are not kept in %s, going on without: %s", self.folder, error)
            return False
        self._evict(keep=path)
        return True

    def get_or_make(self, key: str, make: Callable[[], Pyramid]) -> Pyramid:
        """The stored pyramid with this key; if there is none, compute and store it.

        Args:
            key: Result of `pyramid_key`.
            make: Computes the pyramid with this key.
        """
        found = self.get(key)
        if found is None:
            found = make()
            self.put(found)
        return found

    def note(self, key: str, name: str) -> Any:
        """The note stored beside the pyramid with this key; None if there is none or it cannot be read."""
        path = self._note_path(key, name)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def put_note(self, key: str, name: str, content: Any) -> bool:
        """Store a small note beside the pyramid with this key; it is removed together with the pyramid.

        Args:
            key: As for `get`.
            name: Name of the note: letters, digits and hyphens.
            content: Ready for JSON.

        Returns:
            Whether it was stored: not if there is no such pyramid or the folder is not writable.

        Raises:
            OptionsError: if the name has other characters.
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
        """Remove the pyramid with this key and its notes, if they exist and can be removed."""
        with suppress(OSError):
            _remove(self._path(key))

    def size(self) -> int:
        """Size of all stored pyramids, bytes."""
        return sum(size for _, size, _ in self._entries())

    def __len__(self) -> int:
        """Number of stored pyramids."""
        return len(self._entries())

    def clear(self, *, unused_days: float = 0.0) -> int:
        """Remove stored pyramids, and nothing else in the folder.

        Args:
            unused_days: Remove only those that have not been used for this many days.

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
        """The file of a key."""
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
        """Whether a file exists; False if that cannot be determined."""
        try:
            return path.is_file()
        except OSError:
            return False

    def _entries(self) -> list[tuple[Path, int, float]]:
        """(file, bytes, time of last use) of each stored pyramid, the least recently used first."""
        entries = []
        for folder in self._folders():
            path = folder / STORED_NAME
            with suppress(OSError):  # another process may have removed it
                status = path.stat()
                entries.append((path, status.st_size, status.st_mtime))
        return sorted(entries, key=lambda entry: entry[2])

    def _evict(self, *, keep: Path) -> None:
        """Remove temporary files of killed runs, then pyramids beyond the budget, but never that at `keep`."""
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
    """Whether the operating system can replace a file that a process has mapped into memory."""
    return os.name != "nt"


def _remove(path: Path) -> None:
    """Remove a stored pyramid, its notes and its folder."""
    path.unlink(missing_ok=True)
    for note in path.parent.glob("*.json"):
        if _NOTE.fullmatch(note.stem):
            note.unlink(missing_ok=True)
    with suppress(OSError):  # another process may be writing a new one there
        path.parent.rmdir()
