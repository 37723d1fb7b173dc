"""Selection of the scan among the files of a DICOM folder.

Folders come as archives export them: nested by patient, study and series, with scouts, secondary captures, reports
and vendors' objects beside the scan. The only 3D series is taken, and a note lists what was left out.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from meddift.errors import ImageError, MissingFileError
from meddift.io.dicom_file import quiet_pydicom, read_slices, series_named_in
from meddift.io.dicom_grouping import DicomSeries, series_of
from meddift.io.dicom_slice import DicomSlice
from meddift.io.sniff import what_it_is
from meddift.system.text import one_line, printable

Progress = Callable[[str, float], None]

_DEEPEST = 12


@dataclass(frozen=True, eq=False)
class FolderContent:
    """What a folder holds.

    Attributes:
        series: Series of images, 3D scans first, then by number of slices.
        others: Number of files that belong to no series, by their kind in words.
        damaged: DICOM files that cannot be read.
        strangers: Files that are no DICOM files.
    """

    series: tuple[DicomSeries, ...]
    others: Counter[str]
    damaged: tuple[DamagedFile, ...] = ()
    strangers: tuple[Path, ...] = ()

    def damage_in(self, chosen: DicomSeries) -> ImageError | None:
        """Why a series may be incomplete: a damaged file names this series, or names none and has a similar file name.

        Without this check a lost last slice would not be noticed, because it leaves no gap.
        """
        like = {(path.parent, _pattern(path)) for path in chosen.files}
        belongs = f"is one of the slices of the DICOM series {one_line(chosen.slices[0].uid)}"
        for one in self.damaged:
            if chosen.slices[0].uid in one.uids:
                return ImageError(f"{one.why} It {belongs}.")
            if not one.uids and (one.path.parent, _pattern(one.path)) in like:
                return ImageError(f"{one.why} By its name it {belongs}; move it away if it is not.")
        for path in self.strangers:
            if (path.parent, _pattern(path)) in like and what_it_is(path) is None:
                is_what = f"({path.stat().st_size} bytes) is no DICOM file, or damaged"
                return ImageError(f"{path} {is_what}. By its name it {belongs}; move it away if it is not.")
        return None


@dataclass(frozen=True)
class DamagedFile:
    """A DICOM file that cannot be read.

    Attributes:
        path: The file.
        why: A sentence.
        uids: Series that are named in it; empty where none can be found.
    """

    path: Path
    why: str
    uids: frozenset[str]


class SeveralSeriesError(ImageError):
    """A folder holds several scans, and none was chosen.

    Attributes:
        series: The scans to choose from.
    """

    def __init__(self, series: Sequence[DicomSeries], message: str) -> None:
        super().__init__(message)
        self.series = tuple(series)


def read_folder(folder: Path, *, progress: Progress | None = None) -> FolderContent:
    """Read the headers of all DICOM files in a folder and below it.

    Args:
        folder: The folder, or one DICOM file.
        progress: Called with a sentence and the share that is done.

    Raises:
        MissingFileError: if the folder does not exist.
        ImageError: if the folder cannot be read, or no file in it that is DICOM.
    """
    damaged: list[DamagedFile] = []
    strangers: list[Path] = []
    try:
        files = [folder] if folder.is_file() else _files_below(folder)
        slices, others = [], Counter[str]()
        with quiet_pydicom():
            for number, path in enumerate(files):
                if progress is not None and number % 50 == 0:
                    progress(f"reading {len(files)} headers", number / len(files))
                try:
                    found = read_slices(path)
                except ImageError as error:
                    if len(files) == 1:
                        raise
                    damaged.append(DamagedFile(path, str(error), series_named_in(path)))
                    continue
                slices += found or []
                if found is None:
                    strangers.append(path)
                elif not found:
                    others["DICOM objects that are no images"] += 1
    except MissingFileError:
        raise
    except OSError as error:
        where = printable(str(error.filename or folder))
        raise ImageError(f"{where} cannot be read: {error.strerror or error}.") from error
    if damaged and not slices:
        raise ImageError(damaged[0].why)
    unique: dict[tuple[object, ...], DicomSlice] = {}
    for item in slices:
        key = (item.uid, item.sop, item.frame, item.position.tobytes()) if item.sop else (item.path, item.frame)
        unique.setdefault(key, item)
    if len(unique) < len(slices):
        others["copies of images that are there already"] = len(slices) - len(unique)
    groups: dict[str, list[DicomSlice]] = {}
    for item in unique.values():
        groups.setdefault(item.uid, []).append(item)
    series: list[DicomSeries] = []
    for group in groups.values():
        series += series_of(group, others)
    series.sort(key=lambda one: (one.rank, -len(one.slices)))
    return FolderContent(tuple(series), others, tuple(damaged), tuple(strangers))


def choose_series(
    content: FolderContent, folder: Path, wanted: str | None, *, holding: Path | None = None
) -> DicomSeries:
    """The one series that is there or was asked for.

    Args:
        content: What the folder holds.
        folder: For messages.
        wanted: UID, unique beginning of a UID, or description; None to take the only 3D scan.
        holding: A file; the series that it belongs to is taken.

    Raises:
        ImageError: if there is none, or several and none was asked for.
    """
    if not content.series:
        left = _counted(content.others)
        beside = f" It holds {left}." if left else ""
        raise ImageError(f"the folder {folder} holds no DICOM images, neither directly nor below.{beside}")
    if wanted is None and holding is not None:
        named = [one for one in content.series if holding in one.files]
        if named:
            return named[0]
    best = content.series[0].rank
    candidates = [one for one in content.series if one.rank == best]
    if wanted is None:
        if len(candidates) == 1:
            return candidates[0]
        listing = "\n".join(f"  {one}{_where(one, folder)}" for one in candidates)
        what = "DICOM series" if best < 2 else "DICOM series, none of them a 3D scan"
        raise SeveralSeriesError(
            candidates,
            f"the folder {folder} holds {len(candidates)} {what}; choose one by its UID, the beginning of its UID or "
            f"its description, with --series (in match and register --fixed-series and --moving-series):\n{listing}\n"
            f"for instance: meddift info {shlex.quote(str(folder))} --series {shlex.quote(candidates[0].uid)}",
        )
    text = _folded(wanted)
    listing = "\n".join(f"  {one}" for one in content.series)
    for fits in (
        [one for one in content.series if one.uid == wanted],
        [one for one in content.series if wanted and one.uid.startswith(wanted)],
        [
            one
            for one in content.series
            if text and text in (_folded(one.description), _folded(printable(one.description)))
        ],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise ImageError(f"{len(fits)} DICOM series in {folder} fit {wanted!r}; give a whole UID:\n{listing}")
    raise ImageError(f"no DICOM series in {folder} fits {wanted!r}; there are:\n{listing}")


def left_out(content: FolderContent, chosen: DicomSeries, *, asked: bool) -> str:
    """A sentence about what is not part of the chosen series; "" if there is nothing to say.

    Args:
        content: What the folder holds.
        chosen: The series that is read.
        asked: Whether it was asked for: other scans are not left out then, they were not wanted.
    """
    counts = Counter[str]()
    for one in content.series:
        if one is chosen or (asked and one.rank == 0):
            continue
        counts[_name_of(one)] += len(one.slices)
    if content.damaged:
        names = ", ".join(one_line(one.path.name) for one in content.damaged[:3])
        counts[f"damaged files: {names}{', ...' if len(content.damaged) > 3 else ''}"] = len(content.damaged)
    told = _counted(counts + content.others)
    return f"left out of the folder: {told}" if told else ""


def _files_below(folder: Path) -> list[Path]:
    """All files that may be DICOM, in the order of their names."""
    if not folder.is_dir():
        raise MissingFileError(f"the folder {folder} does not exist")
    found: list[Path] = []
    seen: set[str] = set()

    def complain(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, followlinks=True, onerror=complain):
        real = os.path.realpath(place)  # Path.resolve is many times slower
        if real in seen or len(Path(place).relative_to(folder).parts) > _DEEPEST:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        # macOS puts a ._ file beside each file on foreign disks.
        found += [Path(place, name) for name in sorted(names) if not name.startswith(".")]
    return [path for path in found if path.is_file()]


def _pattern(path: Path) -> str:
    """A file name without its digits, which is the same for all slices of most scans."""
    return re.sub(r"\d+", "#", path.name)


def _where(one: DicomSeries, folder: Path) -> str:
    """Name of the subfolder that holds a whole series, for messages; "" if there is none."""
    places = {path.parent for path in one.files}
    if len(places) != 1:
        return ""
    place = places.pop()
    return "" if place == folder or not place.is_relative_to(folder) else f", in {place.relative_to(folder)}"


def _name_of(one: DicomSeries) -> str:
    """What a series that is left out is, in the plural."""
    first = one.slices[0]
    if first.captured:
        return "secondary captures"
    if first.localizer or (one.rank == 2 and first.kind == "scalar" and first.placed):
        return "localizers or scouts" if first.localizer else "single images"
    return "color images" if first.kind == "color" else "images of other series"


def _counted(counts: Counter[str]) -> str:
    """Numbers and names, the largest first."""
    return ", ".join(f"{name} ({count})" for name, count in counts.most_common())


def _folded(text: str) -> str:
    """Text as people compare it: without case, in one Unicode form, with single blanks."""
    import unicodedata

    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
