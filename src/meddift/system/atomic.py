"""Writing files so that an interrupted run leaves the old files or the new ones, never half a file or a mixture."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meddift.errors import MeddiftError, OutputError
from meddift.system.signals import signals_held
from meddift.system.targets import Target
from meddift.system.temporary import discard, keep_in_use, sweep, temporary_path

Writer = Callable[[Path], None]

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

_UNCHANGED = "Nothing at this path was changed."


@contextmanager
def atomic_write(path: Path | str, *, suffix: str | None = None, make_folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to; at the end of the block it takes the place of `path`.

    If the block fails in any way, Ctrl-C included, the temporary file is removed and what stood at `path`
    before is still there, untouched. Links are written through: the file that they lead to gets the new content.
    To a pipe or an open file, such as /dev/stdout, the content is sent at the end. The file has the permissions that
    any other new file gets in this folder, or those of the file that it replaces.

    Args:
        path: Where the file shall be in the end.
        suffix: What the temporary name ends with. By default it ends with the name of `path`, so that writers
            which look at the suffix (`.nii.gz`, `.mrk.json`) recognise it.
        make_folder: Whether to make the folder of the file; without, it must exist.

    Yields:
        A path that does not exist yet, in the folder of the file.

    Raises:
        OutputError: if the folder is missing, `path` is a folder or a device, nothing was written,
            or the operating system (disk full, no permission) or SimpleITK refuses to write.
    """
    with _staged(Path(path), suffix or "", make_folder=make_folder) as staged:
        yield staged.temporary
        _complete(staged)
        _commit([staged])


def write_together(writers: Mapping[Path, Writer], *, done: Callable[[], None] | None = None) -> None:
    """Write several files: all of them, or none.

    Each is written under a temporary name; when all are complete they take their places. If one cannot, those that
    have are put back. Ctrl-C is held back meanwhile. As for one file, links are written through; streams are
    written to before any file takes its place.

    Args:
        writers: Path -> what writes a file to the path that it is given.
        done: Called once all of them stand in their places, before an interruption that was held back is raised.

    Raises:
        OutputError: if a file cannot be written; says so if something was changed all the same.
        MeddiftError: what a writer raises, with the path that the user knows.
    """
    with ExitStack() as stack:
        every = []
        for path, writer in writers.items():
            staged = stack.enter_context(_staged(path))
            try:
                writer(staged.temporary)
            except MeddiftError as error:
                # The user knows nothing of the temporary name.
                raise type(error)(str(error).replace(str(staged.temporary), str(path))) from error
            _complete(staged)
            every.append(staged)
        _commit(every, done)


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
        ValueError: if a number is NaN or infinite, which JSON cannot express.
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


def check_writable(path: Path) -> None:
    """Raise OutputError unless a file can be made at `path`, or its stream be written to; leaves nothing behind."""
    if not path.is_dir() and not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}; create it first")
    target = Target.of(path)
    if target.stream:
        return
    try:
        # Asking for permissions is not enough: read-only file systems and network shares answer otherwise.
        with tempfile.TemporaryFile(dir=target.place.parent):
            pass
        with contextlib.suppress(FileNotFoundError):
            target.place.stat()  # a name that is too long
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason_of(error)}") from error


def reason_of(error: OSError) -> str:
    """One clause that says why the operating system refused."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__


# ---------------------------------------------------------------------- one file, and how it takes its place


@dataclass(frozen=True)
class _Staged:
    """A file that is being written under a temporary name.

    Attributes:
        target: The output that it becomes.
        temporary: Its present path.
        mode: The permissions that it gets.
    """

    target: Target
    temporary: Path
    mode: int


@contextmanager
def _staged(path: Path, suffix: str = "", *, make_folder: bool = False) -> Iterator[_Staged]:
    """Yield a file to write; all errors, also those of the block, name the path that the user gave."""
    temporary: Path | None = None
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        target = Target.of(path)
        if target.stream:
            temporary = temporary_path(Path(tempfile.gettempdir()) / path.name, suffix)
        else:
            sweep(target.place.parent)
            # Named as it was asked for: writers look at the suffix, and a link may lead to a file with another one.
            temporary = temporary_path(target.place.with_name(path.name), suffix)
        keep_in_use(temporary)
        yield _Staged(target, temporary, _permissions(target, temporary))
    except (MeddiftError, BrokenPipeError):
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason_of(error)}. {_UNCHANGED}") from error
    except RuntimeError as error:
        # SimpleITK raises bare RuntimeErrors with C++ texts of many lines; others are programming errors.
        if "SimpleITK" not in str(error) and "itk::" not in str(error):
            raise
        reason = str(error).strip().splitlines()[-1].strip()
        raise OutputError(f"cannot write {path}: {reason} {_UNCHANGED}") from error
    finally:
        if temporary is not None:
            discard(temporary)


def _permissions(target: Target, temporary: Path) -> int:
    """Permissions of the file that is replaced, else those of a new file in this folder.

    Some libraries write files that only their owner can read, which is wrong in a folder that a group shares.
    """
    with contextlib.suppress(FileNotFoundError):
        if not target.stream:
            return target.place.stat().st_mode & 0o777
    temporary.touch(exist_ok=False)
    mode = temporary.stat().st_mode & 0o777
    temporary.unlink()
    return mode


def _complete(staged: _Staged) -> None:
    """Check that the temporary file exists, flush it to the disk and set its permissions."""
    if not staged.temporary.exists():
        raise OutputError(f"cannot write {staged.target.asked}: the writer finished without creating a file")
    # Only when the data is on the disk is replacing the old file safe against a power cut.
    with staged.temporary.open("rb+") as stream:
        os.fsync(stream.fileno())
    with contextlib.suppress(OSError):  # file systems without permissions
        staged.temporary.chmod(staged.mode)


def _commit(every: Sequence[_Staged], done: Callable[[], None] | None = None) -> None:
    """Move all completed files to their final paths; if one fails, restore the old files and raise OutputError."""
    for staged in every:
        if staged.target.stream:
            staged.target.send(staged.temporary)
    changed: list[tuple[Path, Path | None]] = []
    with signals_held():
        at = None
        try:
            for staged in every:
                if not staged.target.stream:
                    at = staged.target
                    kept = _keep_old(at.place) if len(every) > 1 else None
                    changed.append((at.place, kept))
                    os.replace(staged.temporary, at.place)  # noqa: PTH105 - the name under which it is known as atomic
        except OSError as error:
            changed_still = _put_back(changed, at.place if at is not None else None)
            said = _UNCHANGED if len(every) == 1 else "Nothing was changed, at no path."
            if changed_still:
                said = f"These files were changed already and could not be put back: {', '.join(changed_still)}."
            asked = at.asked if at is not None else every[0].target.asked
            raise OutputError(f"cannot write {asked}: {reason_of(error)}. {said}") from error
        for _, kept in changed:
            if kept is not None:
                discard(kept)
        if done is not None:
            done()


def _keep_old(place: Path) -> Path | None:
    """A second name for the file at `place`, under which it outlives its replacement; None where there is none."""
    if not place.exists():
        return None
    kept = temporary_path(place)
    keep_in_use(kept)
    try:
        os.link(place, kept)
    except OSError:
        # File systems without hard links: for a moment there is no file at `place`.
        place.rename(kept)
    return kept


def _put_back(changed: Sequence[tuple[Path, Path | None]], failed: Path | None) -> list[str]:
    """Undo replacements, the last one first; names the files for which this failed."""
    left = []
    for place, kept in reversed(changed):
        try:
            if kept is not None:
                os.replace(kept, place)  # noqa: PTH105
                discard(kept)
            elif place != failed:
                place.unlink(missing_ok=True)
        except OSError:
            left.append(f"{place} (its old content is in {kept})" if kept is not None else str(place))
    return left
