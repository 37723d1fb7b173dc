"""Floor 1: diffusion models and their weights. Importing this package loads neither torch nor MONAI."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from meddift.models.catalogue import catalogue, find_spec
from meddift.models.haar import haar_forward, haar_inverse, haar_matrix
from meddift.models.prepare import network_grid, prepare_volume
from meddift.models.spec import (
    Conditioning,
    Defaults,
    GridPolicy,
    Intensity,
    LatentStage,
    Licence,
    ModelSpec,
    Schedule,
    WeightFile,
    Weights,
)
from meddift.models.weights import ModelStatus, WeightsLocation, import_weights, locate_weights, model_status, verify

if TYPE_CHECKING:
    from meddift.models.hub import PullProgress, pull
    from meddift.models.loader import load_model
    from meddift.models.network import DiffusionModel

#: Names whose modules are only needed for work, most of them with torch -> the module. Loaded on first use (PEP 562).
_HEAVY = {
    "DiffusionModel": "meddift.models.network",
    "PullProgress": "meddift.models.hub",
    "load_model": "meddift.models.loader",
    "pull": "meddift.models.hub",
}

__all__ = [
    "Conditioning",
    "Defaults",
    "DiffusionModel",
    "GridPolicy",
    "Intensity",
    "LatentStage",
    "Licence",
    "ModelSpec",
    "ModelStatus",
    "PullProgress",
    "Schedule",
    "WeightFile",
    "Weights",
    "WeightsLocation",
    "catalogue",
    "find_spec",
    "haar_forward",
    "haar_inverse",
    "haar_matrix",
    "import_weights",
    "load_model",
    "locate_weights",
    "model_status",
    "network_grid",
    "prepare_volume",
    "pull",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load a name whose module was not needed so far."""
    if name not in _HEAVY:
        raise AttributeError(f"module 'meddift.models' has no attribute {name!r}")
    return getattr(importlib.import_module(_HEAVY[name]), name)


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
