"""Where an output really goes: links are followed, and pipes and open files are written to as streams."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from meddift.errors import OutputError

#: As many links as Linux itself follows.
_MOST_LINKS = 40

_OPEN_FILE = re.compile(r"/(?:proc/(self|\d+)|dev)/fd/(\d+)")
_NUMBERS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


@dataclass(frozen=True)
class Target:
    """Where an output goes.

    Attributes:
        asked: The path as it was given.
        place: The file that the bytes end up in, behind all links.
        stream: Whether it is a pipe or an open file such as /dev/stdout: written to, never replaced.
        descriptor: The open file that it names, such as 1 for /dev/stdout; None for any other path.
    """

    asked: Path
    place: Path
    stream: bool = False
    descriptor: int | None = None

    @classmethod
    def of(cls, path: Path) -> Target:
        """Follow the links of a path.

        Raises:
            OutputError: if links go round in a circle, it is a folder, a device or a socket, or its folder is missing.
        """
        place = Path(path)
        for _ in range(_MOST_LINKS):
            descriptor = _descriptor(place)
            if descriptor is not None:
                return cls(path, place, stream=True, descriptor=descriptor)
            try:
                leads_to = os.readlink(place)  # noqa: PTH115 - Path.readlink drops what Windows puts in front
            except (OSError, ValueError):
                break
            # Not os.path.normpath: behind a link to a folder, `..` is the parent of what the link leads to.
            place = place.parent / leads_to
        else:
            raise OutputError(f"cannot write {path}: its links go round in a circle")
        return cls(path, place, stream=_check_place(path, place))

    def send(self, content: Path) -> None:
        """Write the content of a file into a stream.

        Raises:
            OSError: if it does not take it.
        """
        if self.descriptor is not None:
            if self.descriptor in (1, 2):
                (sys.stdout if self.descriptor == 1 else sys.stderr).flush()
            number = os.dup(self.descriptor)
        else:
            number = os.open(self.place, os.O_WRONLY)
        with content.open("rb") as source, open(number, "wb", buffering=0) as stream:  # noqa: PTH123 - a descriptor
            shutil.copyfileobj(source, stream)


def is_same_file(first: Path, second: Path) -> bool:
    """Whether two paths are one file, however they are spelled: links, hard links, upper and lower case."""
    try:
        return first.samefile(second)
    except OSError:  # one of them is not there
        return os.path.realpath(first) == os.path.realpath(second)


def _descriptor(place: Path) -> int | None:
    """The number of the open file that a path such as /dev/stdout names."""
    if os.name != "posix":
        return None
    text = os.path.abspath(place)  # noqa: PTH100 - must not follow links
    found = _OPEN_FILE.fullmatch(text)
    if found is None:
        return _NUMBERS.get(text)
    return int(found.group(2)) if found.group(1) in (None, "self", str(os.getpid())) else None


def _check_place(path: Path, place: Path) -> bool:
    """Refuse what can be known to fail before any work is done for it; True for a stream."""
    try:
        mode = place.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:
        mode = None
    except NotADirectoryError:
        raise OutputError(f"cannot write {path}: {place.parent} is a file, not a folder") from None
    except OSError:
        mode = None  # such as a name that is too long, which is said when it is written
    if mode is not None:
        if stat.S_ISDIR(mode):
            raise OutputError(f"cannot write {path}: it is a folder; give the name of a file in it")
        if stat.S_ISFIFO(mode):
            return True
        if not stat.S_ISREG(mode):
            raise OutputError(f"cannot write {path}: it is a device, not a file")
    if not place.parent.exists():
        raise OutputError(f"cannot write {path}: the folder {place.parent} does not exist; create it first")
    if not place.parent.is_dir():
        raise OutputError(f"cannot write {path}: {place.parent} is a file, not a folder")
    return False
