"""The output folder of an evaluation or ablation, which only these commands write to and may reuse."""

from __future__ import annotations

from pathlib import Path

from meddift.errors import OptionsError
from meddift.system.folders import check_folder, make_folder


def claim_run_folder(folder: Path, data: str | None = None) -> None:
    """Create the folder of a run, or check that an existing one may be reused.

    Args:
        folder: Output folder; created if it does not exist.
        data: Value of `--data`, such as `pairs:FILE`; the data set must not lie in the folder.

    Raises:
        OutputError: if the folder is not writable, or contains files that do not belong to a run.
        OptionsError: if the data set lies in the folder.
    """
    _, separator, place = (data or "").partition(":")
    if separator and Path(place).exists() and Path(place).resolve().is_relative_to(folder.resolve()):
        raise OptionsError(f"the data set {place} lies in {folder} and would be overwritten; give another folder")
    if folder.exists():
        check_folder(folder, _is_run)
    make_folder(folder)


def _is_run(folder: Path) -> bool:
    """Whether the folder belongs to a run: it contains cases or commands, or the run was interrupted before that."""
    from meddift_lab.running.commands import remembered_commands

    if remembered_commands(folder) or any((folder / "cases").glob("*/case.json")):
        return True
    return not any(path.is_file() for path in folder.rglob("*"))
