"""Describing files of stored features from their headers, without reading the features."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from meddift.errors import ImageError

#: Name of the file of features in the folder of each scan.
STORED_NAME = "pyramid.safetensors"

#: Largest plausible header, bytes; safetensors itself allows 100 MB.
_LARGEST_HEADER = 1 << 24


def stored_in(folder: Path) -> list[Path]:
    """Files of stored features in a store, or in the folder of one scan of a store."""
    return sorted([*folder.glob(STORED_NAME), *folder.glob(f"*/{STORED_NAME}")])


def describe_stored(path: Path | str) -> dict[str, Any]:
    """Describe a safetensors file of stored features or weights, or a folder of a store.

    Args:
        path: The file or folder.

    Returns:
        Ready for JSON: `path`, `format`, `bytes`, `layout`, `digest` (key of the features), `levels` (name and shape:
        X, Y, Z, channels), `provenance`; for weights `tensors` and `parameters`; for a folder `stored`, with these
        entries for each file, or its `problem`.

    Raises:
        ImageError: if it is not such a file, or damaged.
    """
    path = Path(path)
    if path.is_dir():
        files = stored_in(path)
        size = sum(file.stat().st_size for file in files)
        return {"path": str(path), "format": "store of features", "bytes": size, "stored": [_one(f) for f in files]}
    return _described(path)


def _one(path: Path) -> dict[str, Any]:
    """Describe one file of a folder; for a damaged one the entry says the problem."""
    try:
        return _described(path)
    except ImageError as error:
        return {"path": str(path), "problem": str(error)}


def _described(path: Path) -> dict[str, Any]:
    """Describe one file; raises ImageError if it is damaged."""
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(size - 8, _LARGEST_HEADER):
                raise ValueError("its header is cut off")
            listed = json.loads(stream.read(length))
        metadata = listed.pop("__metadata__", {})
        shapes = {name: [int(n) for n in one["shape"]] for name, one in listed.items()}
        if not all(0 <= stop <= size - 8 - length for stop in (one["data_offsets"][1] for one in listed.values())):
            raise ValueError("its data is cut off")
        told: dict[str, Any] = {"path": str(path), "format": "stored features", "bytes": size}
        if "meddift" not in metadata:
            counts = [math.prod(shape) for shape in shapes.values()]
            return {**told, "format": "weights", "tensors": len(counts), "parameters": sum(counts)}
        header = json.loads(metadata["meddift"][8:])
        levels = [{"name": one["name"], "shape": shapes[one["name"]]} for one in header["levels"]]
        return {
            **told,
            "layout": header["layout"],
            "digest": header["digest"],
            "levels": levels,
            "provenance": header["provenance"],
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ImageError(f"{path} is not a file of stored features, or is damaged: {str(error)[:100]}.") from error
