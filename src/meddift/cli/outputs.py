"""The files that a command writes: checked before the work begins, written all together at its end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from meddift.errors import MeddiftError, OptionsError, OutputError

Writer = Callable[[Path], None]


@dataclass
class Outputs:
    """Files that a command was asked for.

    Attributes:
        inputs: Files that must not be overwritten.
        required: Path -> what writes it.
        optional: The same, for files that may fail without the others being lost.
        written: The files that stand in their places, after `commit`.
    """

    inputs: tuple[Path, ...]
    required: dict[Path, Writer] = field(default_factory=dict)
    optional: dict[Path, Writer] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)

    def check(self, paths: Iterable[Path]) -> None:
        """Refuse outputs that can be known to fail, before minutes of work are spent.

        Raises:
            OutputError: if a folder is missing or cannot be written to, or a path is a folder.
            OptionsError: if two outputs are one file, or an output is an input.
        """
        wanted = [path.resolve() for path in paths]
        for path in paths:
            place = path.resolve()
            if wanted.count(place) > 1:
                raise OptionsError(f"{path} is asked for twice; give each output a name of its own")
            if any(place == source.resolve() for source in self.inputs):
                raise OptionsError(f"{path} is also an input and would be overwritten; give the output another name")
            check_writable(path)

    def commit(self) -> list[str]:
        """Write everything: the required files all or none, then the optional ones.

        Returns:
            What could not be written of the optional files, one sentence each.

        Raises:
            MeddiftError: if a required file could not be written; then nothing was.
        """
        _write_together(self.required)
        self.written += self.required
        missed = []
        for path, writer in self.optional.items():
            try:
                _write_together({path: writer})
                self.written.append(path)
            except Exception as error:
                reason = str(error) if isinstance(error, MeddiftError) else f"{type(error).__name__}: {error}"
                missed.append(f"{path} was not written: {reason}")
        return missed


def check_writable(path: Path) -> None:
    """Raise OutputError unless a file can be made at `path`; leaves nothing behind."""
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}; create it first")
    try:
        # Asking for permissions is not enough: read-only file systems and network shares answer otherwise.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error


def _write_together(writers: dict[Path, Writer]) -> None:
    """Write each file under a temporary name; they take their places only when all of them are complete."""
    from meddift.system.atomic import atomic_write

    with ExitStack() as stack:
        for path, writer in writers.items():
            temporary = stack.enter_context(atomic_write(path))
            try:
                writer(temporary)
            except MeddiftError as error:
                # The user knows nothing of the temporary name.
                raise type(error)(str(error).replace(str(temporary), str(path))) from error
