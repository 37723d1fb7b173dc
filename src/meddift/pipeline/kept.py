"""Results about a pair of scans, stored on disk beside the features of the fixed scan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

from meddift.errors import NoCorrespondenceError
from meddift.features import FeatureStore
from meddift.features.code import code_digest

Found = TypeVar("Found")


def keep(
    store: FeatureStore | None,
    key: str,
    kind: str,
    decides: dict[str, Any],
    make: Callable[[], Found],
    *,
    content: Callable[[Found], dict[str, Any]],
    read: Callable[[dict[str, Any]], Found],
) -> Found:
    """Read a stored result for the same scans and settings, or compute and store it.

    Args:
        store: The feature store; None = compute without storing.
        key: Digest of the features of the fixed scan.
        kind: One word that names the kind of result; part of the file name.
        decides: Everything else that the result depends on, ready for JSON.
        make: Computes the result.
        content: Converts the result to a JSON dictionary without loss.
        read: Converts it back.

    Raises:
        NoCorrespondenceError: if `make` raises it; this outcome is stored too.
    """
    if store is None:
        return make()
    code = code_digest("matching", "pipeline", "geometry", "registration")
    told = json.dumps({**decides, "code": code}, sort_keys=True)
    name = f"{kind}-{hashlib.sha256(told.encode()).hexdigest()[:32]}"
    known = store.note(key, name)
    if isinstance(known, dict):
        if "none" in known:
            raise NoCorrespondenceError(str(known["none"]))
        try:
            return read(known)
        except (KeyError, TypeError, ValueError):
            pass  # damaged: computed again
    try:
        made = make()
    except NoCorrespondenceError as error:
        store.put_note(key, name, {"none": str(error)})
        raise
    store.put_note(key, name, content(made))
    return made
