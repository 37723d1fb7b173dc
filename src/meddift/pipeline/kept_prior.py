"""Storing the prior of a pair beside the features of its fixed scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from meddift.features import FeatureStore
from meddift.geometry import AffineTransform
from meddift.matching.prior import MatchedPrior
from meddift.pipeline.kept import keep


def keep_prior(
    store: FeatureStore | None, key: str, settings: dict[str, Any], make: Callable[[], MatchedPrior]
) -> MatchedPrior:
    """Read the stored prior for the same scans and settings, or compute and store it.

    Args:
        store: The feature store; None = compute without storing.
        key: Digest of the features of the fixed scan.
        settings: Everything else that the prior depends on, ready for JSON.
        make: Computes the prior.

    Raises:
        NoCorrespondenceError: if `make` raises it; this outcome is stored too.
    """
    return keep(store, key, "prior", settings, make, content=_content, read=_read)


def _content(prior: MatchedPrior) -> dict[str, Any]:
    """The prior as a JSON dictionary; JSON keeps every bit of a float."""
    return {
        "affine": prior.affine.matrix.tolist(),
        "anchors": prior.anchors.tolist(),
        "residuals": prior.residuals.tolist(),
        "width_mm": prior.width_mm,
        "matched": prior.matched,
        "asked": prior.asked,
        "similarity": prior.similarity if np.isfinite(prior.similarity) else None,
    }


def _read(content: dict[str, Any]) -> MatchedPrior:
    """The prior from its JSON dictionary, the inverse of `_content`."""
    similarity = content["similarity"]
    return MatchedPrior(
        AffineTransform(np.array(content["affine"], dtype=np.float64)),
        np.array(content["anchors"], dtype=np.float64).reshape(-1, 3),
        np.array(content["residuals"], dtype=np.float64).reshape(-1, 3),
        float(content["width_mm"]),
        int(content["matched"]),
        float("nan") if similarity is None else float(similarity),
        int(content["asked"]),
    )
