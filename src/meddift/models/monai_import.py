"""The only place where MONAI is imported, without the warnings of its import."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any


@cache
def monai_autoencoder() -> Any:
    """MONAI's AutoencoderKlMaisi class; the first call takes seconds.

    Warnings that MONAI's import raises about its own dependencies are suppressed: users cannot act on them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
    return AutoencoderKlMaisi


@cache
def metatensor_classes() -> tuple[Any, ...]:
    """The plain data classes that a pickled MetaTensor consists of; loading them runs no code of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.data.meta_obj import MetaObj
        from monai.data.meta_tensor import MetaTensor
        from monai.utils.enums import MetaKeys, SpaceKeys, TraceKeys
    return MetaTensor, MetaObj, MetaKeys, SpaceKeys, TraceKeys
