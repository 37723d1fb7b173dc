"""The folder of an evaluation or ablation: filled by these commands only, and used again by them."""

from __future__ import annotations

from pathlib import Path

from meddift.errors import OptionsError
from meddift.system.folders import check_folder, make_folder


def claim_run_folder(folder: Path, data: str | None = None) -> None:
    """Make the folder of a run, or take up the one that is there.

    Args:
        folder: Where to; made if it is not there.
        data: The data set as it was asked for, such as `pairs:FILE`: nothing of it may lie in the folder.

    Raises:
        OutputError: if it cannot be written to, or holds files that no run has made.
        OptionsError: if the data set lies in it.
    """
    _, separator, place = (data or "").partition(":")
    if separator and Path(place).exists() and Path(place).resolve().is_relative_to(folder.resolve()):
        raise OptionsError(f"the data set {place} lies in {folder} and would be overwritten; give another folder")
    if folder.exists():
        check_folder(folder, _is_run)
    make_folder(folder)


def _is_run(folder: Path) -> bool:
    """Whether a run has stored cases or its command there, or was stopped before it could."""
    from meddift_lab.running.commands import remembered_commands

    if remembered_commands(folder) or any((folder / "cases").glob("*/case.json")):
        return True
    return not any(path.is_file() for path in folder.rglob("*"))
