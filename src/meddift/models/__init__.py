"""Diffusion models and their weights. Importing this package loads neither torch nor MONAI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.models.catalogue import catalogue, find_spec
from meddift.models.haar import haar_forward, haar_inverse, haar_matrix
from meddift.models.prepare import network_grid, padded_for_card, prepare_volume
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
from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift.models.hub import PullProgress, pull
    from meddift.models.loader import load_model
    from meddift.models.network import DiffusionModel

#: Public name -> module, for names that are imported on first use (PEP 562) because most of their modules load torch.
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
    "padded_for_card",
    "prepare_volume",
    "pull",
    "verify",
]

__getattr__, __dir__ = lazy_names(__name__, _HEAVY, __all__)
