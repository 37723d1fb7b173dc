"""Which code makes features: what was made by other code or other libraries is not mistaken for what is made now."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata, resources


@cache
def code_digest(*packages: str) -> str:
    """sha256 of the source of some packages of meddift, and of the modules beside them, as 64 hexadecimal digits.

    Any change counts, be it of a comment: rather made anew once too often than kept once too long.

    Args:
        *packages: Such as "features".
    """
    state = hashlib.sha256()
    root = resources.files("meddift")
    for folder in (root, *(root / name for name in sorted(packages))):
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if file.name.endswith(".py"):
                state.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return state.hexdigest()


@cache
def installed_version(package: str) -> str:
    """Version of an installed package, found without importing it; "" where it is not known."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
