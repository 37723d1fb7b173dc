"""Storing the displacement field of a pair beside the features of its fixed scan."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from meddift.features import FeatureStore
from meddift.geometry import AffineTransform, DisplacementField, Grid, Transform
from meddift.pipeline.kept import keep
from meddift.registration.fitted import Field
from meddift.registration.support import Support
from meddift.volume import Volume


def keep_field(
    store: FeatureStore | None,
    key: str,
    settings: dict[str, Any],
    make: Callable[[], Field],
) -> Field:
    """Read the stored field for the same scans and settings, or compute and store it.

    Args:
        store: The feature store; None = compute without storing.
        key: Digest of the features of the fixed scan.
        settings: Everything else that the field depends on, ready for JSON.
        make: Computes the field; its transform must be a `DisplacementField`.

    Raises:
        NoCorrespondenceError: if `make` raises it; this outcome is stored too.
    """
    return keep(store, key, "field", settings, make, content=_content, read=_read)


def _content(field: Field) -> dict[str, Any]:
    """The field as a JSON dictionary."""
    assert isinstance(field.transform, DisplacementField)
    support = field.support
    return {
        "affine": field.affine.matrix.tolist(),
        "grid": _grid(field.transform.grid),
        "displacement": _packed(field.transform.displacement),
        "parts": [_packed(part.displacement) for part in _fields(field.parts)] if field.sliding is not None else [],
        "sliding": field.sliding
        and {"grid": _grid(field.sliding.grid), "bits": _packed(np.packbits(field.sliding.data.astype(bool)))},
        "support": support
        and {
            "grid": _grid(support.grid),
            "disagreement": _packed(support.disagreement_mm.cpu().numpy()),
            "supported": _packed(support.supported.cpu().numpy()),
        },
        "evidence": field.evidence,
    }


def _fields(parts: Sequence[Transform]) -> list[DisplacementField]:
    return [part for part in parts if isinstance(part, DisplacementField)]


def _read(content: dict[str, Any]) -> Field:
    """The field from its JSON dictionary, the inverse of `_content`; `timing` is empty."""
    grid, support, sliding = _grid_of(content["grid"]), content["support"], content["sliding"]

    def field(text: str) -> DisplacementField:
        return DisplacementField(_unpacked(text, "float32", (3, *grid.shape)), grid)

    whole = field(content["displacement"])
    return Field(
        whole,
        tuple(field(text) for text in content["parts"]) or (whole,),
        sliding and _mask_of(sliding),
        AffineTransform(np.array(content["affine"], dtype=np.float64)),
        support and _support_of(support),
        {str(name): float(value) for name, value in content["evidence"].items()},
        {},
    )


def _mask_of(content: dict[str, Any]) -> Volume:
    grid = _grid_of(content["grid"])
    bits = _unpacked(content["bits"], "uint8", (-(-grid.size // 8),))
    return Volume(np.unpackbits(bits, count=grid.size).astype(bool).reshape(grid.shape), grid)


def _support_of(content: dict[str, Any]) -> Support:
    grid = _grid_of(content["grid"])
    return Support(
        grid,
        torch.from_numpy(_unpacked(content["disagreement"], "float32", grid.shape)),
        torch.from_numpy(_unpacked(content["supported"], "bool", grid.shape)),
    )


def _grid(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}


def _grid_of(content: dict[str, Any]) -> Grid:
    shape = content["shape"]
    return Grid((shape[0], shape[1], shape[2]), np.array(content["affine"], dtype=np.float64))


def _packed(values: NDArray[Any]) -> str:
    """Checksum and bytes of an array as text, not compressed: displacements compress poorly."""
    content = np.ascontiguousarray(values).tobytes()
    return f"{zlib.crc32(content):08x}{base64.b64encode(content).decode('ascii')}"


def _unpacked(text: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    content = base64.b64decode(text[8:])
    if f"{zlib.crc32(content):08x}" != text[:8]:
        raise ValueError("damaged: the checksum is wrong")
    return np.frombuffer(content, dtype=dtype).reshape(shape).copy()
