"""Writing files so that an interrupted run leaves the old file or the new one, never half a file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meddift.errors import MeddiftError, OutputError

#: What an operating system error means for the person who waits for the file.
_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EACCES: "there is no permission to write there; choose another folder",
    errno.EPERM: "there is no permission to write there; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EFBIG: "the file grows beyond what the file system or the user limits allow",
}


@contextmanager
def atomic_write(path: Path | str, *, suffix: str | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to; at the end of the block it takes the place of `path`.

    If the block fails in any way, Ctrl-C included, the temporary file is removed and what stood at `path`
    before is still there, untouched.

    Args:
        path: Where the file shall be in the end. Its folder must exist.
        suffix: What the temporary name ends with. By default it ends with the name of `path`, so that writers
            which look at the suffix (`.nii.gz`, `.mrk.json`) recognise it.

    Yields:
        A path in the same folder that does not exist yet.

    Raises:
        OutputError: if the folder is missing, `path` is a folder or a device, nothing was written,
            or the operating system (disk full, no permission) or SimpleITK refuses to write.
    """
    path = Path(path)
    # The last 64 characters keep every suffix, and the temporary name within the limit of the file system.
    temporary = path.with_name(f".tmp-{secrets.token_hex(6)}-{path.name[-64:]}{suffix or ''}")
    try:
        _check_target(path)
        yield temporary
        if not temporary.exists():
            raise OutputError(f"cannot write {path}: the writer finished without creating a file")
        _flush_to_disk(temporary)
        os.replace(temporary, path)  # noqa: PTH105 - the name under which it is known as atomic
    except MeddiftError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}. Nothing at this path was changed.") from error
    except RuntimeError as error:
        # SimpleITK raises bare RuntimeErrors with C++ texts of many lines; others are programming errors.
        if "SimpleITK" not in str(error) and "itk::" not in str(error):
            raise
        reason = str(error).strip().splitlines()[-1].strip()
        raise OutputError(f"cannot write {path}: {reason} Nothing at this path was changed.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(text: str, path: Path | str) -> None:
    """Write text as UTF-8 with Unix line ends, atomically.

    Args:
        text: The whole content.
        path: The file.

    Raises:
        OutputError: if it cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(content: Any, path: Path | str) -> None:
    """Write JSON (UTF-8, two spaces of indentation, one line end at the end), atomically.

    Args:
        content: Dictionaries, lists, strings, finite numbers, booleans and None.
        path: The file.

    Raises:
        OutputError: if it cannot be written.
        ValueError: if a number is NaN or infinite: JSON has no word for them.
    """
    write_text(json_text(content), path)


def json_text(content: Any) -> str:
    """JSON with two spaces of indentation and one line end at the end.

    Args:
        content: Dictionaries, lists, strings, finite numbers, booleans and None.

    Raises:
        ValueError: if a number is NaN or infinite: JSON has no word for them.
    """
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _check_target(path: Path) -> None:
    """Refuse what can be known to fail before any work is done for it."""
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give the name of a file in it")
    if path.exists() and not path.is_file():
        # os.replace would remove the device itself, /dev/null for instance.
        raise OutputError(f"cannot write {path}: it is a device, not a file")
    if not folder.exists():
        raise OutputError(f"cannot write {path}: the folder {folder} does not exist; create it first")
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: {folder} is a file, not a folder")


def _flush_to_disk(temporary: Path) -> None:
    """Wait until the data is on the disk: only then is replacing the old file safe against a power cut."""
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())


def _reason(error: OSError) -> str:
    """One clause that says why the operating system refused."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__
