"""Identifying the code that computes features, so that results of other versions are not reused."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata, resources


@cache
def code_digest(*packages: str) -> str:
    """sha256 of the source of some packages of meddift and of its top-level modules, 64 hexadecimal digits.

    Any change to a source file changes the digest, even that of a comment.

    Args:
        *packages: Names of packages, such as "features".
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
    """Version of an installed package, without importing it; "" if unknown."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
