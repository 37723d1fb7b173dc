"""Results about a pair of scans, kept on disk beside the features of the fixed scan: computed once."""

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
    """What was found before for the same scans and settings, or else found now and kept.

    Args:
        store: Where features are kept; None keeps nothing.
        key: Digest of the features of the fixed scan.
        kind: What it is; a word.
        decides: All else that decides it, ready for JSON.
        make: Finds it.
        content: Turns it into what JSON can hold without losing a bit.
        read: The way back.

    Raises:
        NoCorrespondenceError: if there is none; that is kept too.
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
            pass  # damaged: it is made again
    try:
        made = make()
    except NoCorrespondenceError as error:
        store.put_note(key, name, {"none": str(error)})
        raise
    store.put_note(key, name, content(made))
    return made
