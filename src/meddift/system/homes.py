"""Folders of meddift on this machine: data (weights, data sets), cache, and state of the user."""

from __future__ import annotations

import os
from pathlib import Path

from meddift.errors import OutputError

#: Environment variables that name the folders.
HOME_VARIABLE, CACHE_VARIABLE, STATE_VARIABLE = "MEDDIFT_HOME", "MEDDIFT_CACHE", "MEDDIFT_STATE"


def data_folder() -> Path:
    """Folder of weights and data sets that were downloaded or imported: MEDDIFT_HOME, or the user's data folder.

    Raises:
        OutputError: if the variable is not set and this user has no home directory.
    """
    return _chosen(HOME_VARIABLE, "user_data_path")


def cache_folder() -> Path:
    """Folder of what can be computed again, such as features: MEDDIFT_CACHE, or the user's cache folder.

    Raises:
        OutputError: if the variable is not set and this user has no home directory.
    """
    return _chosen(CACHE_VARIABLE, "user_cache_path")


def state_folder() -> Path:
    """Folder of what one user did recently, never shared with others: MEDDIFT_STATE, or the user's state folder.

    Raises:
        OutputError: if the variable is not set and this user has no home directory.
    """
    return _chosen(STATE_VARIABLE, "user_state_path")


def _chosen(variable: str, usual: str) -> Path:
    """The folder that an environment variable names, else the usual one of this system; always an absolute path.

    Users without a home directory are common in containers. The system then leaves `~` as it is, and a folder
    of this name would be made.
    """
    named = os.environ.get(variable, "").strip()
    reason: Exception | None = None
    try:
        if named:
            folder = Path(named).expanduser()
        else:
            import platformdirs

            folder = getattr(platformdirs, usual)("meddift", appauthor=False)
        if folder.parts[:1] != ("~",):  # left by older versions of platformdirs
            return folder.absolute()
    except RuntimeError as error:
        reason = error
    raise OutputError(
        f"this user has no home directory to keep things in; set the environment variable {variable} to a folder"
    ) from reason
