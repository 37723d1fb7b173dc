"""Output files of a command: checked before the work begins, and written together at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from meddift.cli.failures import note_wanted, note_written, stop_if_interrupted
from meddift.errors import MeddiftError, OptionsError
from meddift.system.atomic import check_writable, write_together
from meddift.system.folders import check_folder
from meddift.system.targets import Target, is_same_file

Writer = Callable[[Path], None]

#: Suffixes that can be written, by what is written.
IMAGES = (".nii.gz", ".nii", ".nrrd", ".mha")
PICTURES = (".png",)


@dataclass
class Outputs:
    """Output files of a command.

    Attributes:
        inputs: Files and folders that are read and must not be overwritten.
        required: Path -> function that writes the file.
        optional: Path -> function that writes the file, for files that may fail without loss of the others.
        written: Files that were written by `commit`.
    """

    inputs: tuple[Path, ...]
    required: dict[Path, Writer] = field(default_factory=dict)
    optional: dict[Path, Writer] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)

    def check(self, paths: Iterable[Path]) -> None:
        """Check before the work begins that outputs can be written and overwrite no input.

        Raises:
            OutputError: if a folder is missing or cannot be written to, or a path is a folder.
            OptionsError: if two outputs are the same file, or an output is an input, also by another path or link.
        """
        wanted = list(paths)
        for path in wanted:
            check_writable(path)
        inputs = [file for path in self.inputs for file in (path, *_belonging_to(path))]
        for number, path in enumerate(wanted):
            place = Target.of(path).place
            if any(is_same_file(place, Target.of(other).place) for other in wanted[:number]):
                raise OptionsError(f"{path} is asked for twice; give each output a name of its own")
            for source in inputs:
                if is_same_file(place, source):
                    raise OptionsError(
                        f"{path} is also an input and would be overwritten; give the output another name"
                    )
                if place.exists() and source.is_dir() and place.resolve().is_relative_to(source.resolve()):
                    raise OptionsError(
                        f"{path} lies in the input folder {source} and would be overwritten; give the output "
                        f"another name"
                    )
        note_wanted(wanted)

    def commit(self) -> list[str]:
        """Write all required files or none of them, then the optional files.

        Returns:
            One sentence for each optional file that could not be written.

        Raises:
            MeddiftError: if a required file could not be written; then no file is written.
        """
        stop_if_interrupted()
        self._write(self.required)
        missed = []
        for path, writer in self.optional.items():
            try:
                self._write({path: writer})
            except Exception as error:
                stop_if_interrupted()
                reason = str(error) if isinstance(error, MeddiftError) else f"{type(error).__name__}: {error}"
                missed.append(f"{path} was not written: {reason}")
        return missed

    def _write(self, writers: dict[Path, Writer]) -> None:
        def done() -> None:
            self.written += writers
            note_written(writers)

        write_together(writers, done=done)


def check_output_folder(folder: Path, is_ours: Callable[[Path], bool], inputs: Iterable[Path]) -> None:
    """Check that writing to an output folder overwrites no file of the user.

    Args:
        folder: The folder; it need not exist.
        is_ours: Returns whether the content of a folder was written by the same command.
        inputs: Files and folders that are read.

    Raises:
        OutputError: if it cannot be written to, or holds files that the command has not made.
        OptionsError: if an input lies in it.
    """
    check_folder(folder, is_ours)
    for source in inputs:
        if source.exists() and source.resolve().is_relative_to(folder.resolve()):
            raise OptionsError(
                f"{source} is also an input, and lies in the output folder {folder}, where it could be overwritten; "
                f"give another folder"
            )


def check_suffix(path: Path | None, suffixes: tuple[str, ...], what: str) -> None:
    """Check the suffix of an output file.

    Args:
        path: The output; None if there is none.
        suffixes: Supported suffixes.
        what: Kind of output for the message, such as "pictures".

    Raises:
        OptionsError: if the suffix is not supported.
    """
    if path is not None and not path.name.lower().endswith(suffixes):
        raise OptionsError(f"{what} are written to {', '.join(suffixes)}; got the name {path.name!r}")


def _belonging_to(path: Path) -> Iterator[Path]:
    """Files that are read with an input, such as the voxels of a header or the description beside a transform."""
    if not path.is_file():
        return
    from meddift.io.images import DICOM_SUFFIXES, IMAGE_SUFFIXES, read_header, suffix_of
    from meddift.io.transform_sidecar import sidecar_path
    from meddift.io.transforms import TRANSFORM_SUFFIXES

    if suffix_of(path, TRANSFORM_SUFFIXES) is not None:
        yield sidecar_path(path)
    if suffix_of(path, IMAGE_SUFFIXES) not in (None, *DICOM_SUFFIXES):
        with contextlib.suppress(MeddiftError):  # said where the image is read
            yield from read_header(path).files
