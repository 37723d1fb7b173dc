"""Downloading data sets, when asked to and never otherwise (pooch: temporary file, hash, move)."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from meddift.errors import MeddiftError, MissingFileError, OptionsError, OutputError
from meddift.system.atomic import write_text
from meddift.system.folders import check_folder, make_folder
from meddift.system.homes import data_folder
from meddift_lab.sets.catalogue import DATA_SETS, Archive, DataSet

Progress = Callable[[str], None]


def default_folder() -> Path:
    """Where data sets are kept: the folder `datasets` of MEDDIFT_HOME, or of the user's data folder."""
    return data_folder() / "datasets"


def find_data_set(name: str) -> DataSet:
    """A data set of the catalogue.

    Raises:
        OptionsError: if there is none of this name.
    """
    for data_set in DATA_SETS:
        if data_set.name == name:
            return data_set
    raise OptionsError(f"there is no data set {name!r}; there are {', '.join(known.name for known in DATA_SETS)}")


def fetch_data_set(
    data_set: DataSet, folder: Path, *, unpack: bool = True, on_progress: Progress | None = None
) -> list[Path]:
    """Download and unpack a data set; what is there already and sound is not downloaded again.

    Args:
        data_set: The data set.
        folder: Output folder; created if it does not exist.
        unpack: Whether to unpack zip files beside themselves.
        on_progress: Called with a line of text.

    Returns:
        The downloaded files.

    Raises:
        OptionsError: if there is nothing to download.
        MissingFileError: if the server cannot be reached or has no such file.
        OutputError: if the hash differs, an archive is damaged, files cannot be written, or the folder holds others.
    """
    import pooch

    if not data_set.archives:
        how = f"get it from {data_set.source}, then" if data_set.source else "nothing has to be downloaded:"
        raise OptionsError(f"{data_set.name} cannot be fetched; {how} use --data {data_set.usage}")
    report = on_progress or (lambda line: None)
    names = [archive.name for archive in data_set.archives]
    if folder.exists():
        # Unpacking would replace files of the same names.
        check_folder(folder, lambda place: any((place / name).exists() for name in names))
    make_folder(folder)
    files = []
    pooch.get_logger().setLevel("WARNING")
    for archive in data_set.archives:
        known = archive.sha256 or _noted_hash(folder, archive)
        report(f"{archive.url} -> {folder / archive.name}")
        try:
            path = Path(pooch.retrieve(archive.url, known, fname=archive.name, path=folder))
        except ValueError as error:
            raise OutputError(
                f"{archive.url} does not have the hash it should have ({known}); the file was changed or the download "
                f"was damaged, and nothing was kept"
            ) from error
        except Exception as error:
            if isinstance(error, MeddiftError):
                raise
            raise MissingFileError(f"cannot download {archive.url}: {error}") from error
        if known is None:
            found = str(pooch.file_hash(str(path), alg="sha256"))
            write_text(f"{found}  {archive.name}\n", folder / f"{archive.name}.sha256")
            report(f"sha256 {found} (no published hash to compare with; noted for the next time)")
        files.append(path)
        if unpack and path.suffix == ".zip":
            report(f"unpacking {path.name}")
            _unpack(path, folder)
    return files


def _noted_hash(folder: Path, archive: Archive) -> str | None:
    """The hash that was written down when the file was downloaded for the first time."""
    note = folder / f"{archive.name}.sha256"
    return note.read_text(encoding="utf-8").split()[0] if note.is_file() else None


def _unpack(path: Path, folder: Path) -> None:
    """Unpack a zip file; names that lead out of the folder are refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not (folder / name).resolve().is_relative_to(folder.resolve()):
                    raise OutputError(f"{path} holds {name!r}, which would be written outside {folder}")
            archive.extractall(folder)
    except zipfile.BadZipFile as error:
        raise OutputError(f"{path} is not a zip file, or is damaged: {error}") from error
