"""Which intensity rule a scan is given: that of the model, or one made from the scan itself.

A network that was trained on CT expects Hounsfield units. In other scans it can still recognise structure if their
intensities are mapped to the range that it was trained on. Under a window of Hounsfield units, an MR scan would use
only a small part of that range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.models.spec import Intensity, ModelSpec
from meddift.volume import Volume

#: Percentiles that are mapped to the ends of the range: the lower one of all voxels, the upper one of the body.
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
#: Voxels above this share of the range count as body, not air.
BODY_SHARE = 0.1
#: Fat and lung lie below this, HU; almost every CT shows one of them.
BELOW_WATER_HU = -40.0
#: Smallest share of voxels of a CT below `BELOW_WATER_HU`, and the largest value of bone or metal, HU.
LEAST_BELOW, HIGHEST_HU = 1e-3, 40000.0
#: Values of a CT do not lie below this, HU.
LOWEST_HU = -5000.0
#: About how many voxels are examined.
_LOOKED_AT = 500_000


@dataclass(frozen=True)
class IntensityChoice:
    """The rule for one scan.

    Attributes:
        rule: Mapping from intensities to the values that the network sees.
        modality: What the scan is treated as: "CT", "MR", another DICOM modality, or "other".
        reason: Which rule was chosen and why, in words.
        warning: What is suspicious about the scan; "" if nothing is.
    """

    rule: Intensity
    modality: str
    reason: str
    warning: str = ""

    @property
    def hounsfield(self) -> bool:
        """Whether the values of the scan are taken for Hounsfield units."""
        return self.modality == "CT" and not self.warning


def choose_intensity(volume: Volume, spec: ModelSpec) -> IntensityChoice:
    """Choose the rule by the modality of the scan (`Volume.modality`), or by its values if that is unknown.

    A model that has a percentile rule of its own keeps it.

    Args:
        volume: (X, Y, Z) scan, any real type.
        spec: The model.
    """
    said = volume.modality.upper()
    if spec.intensity.kind != "window":
        return IntensityChoice(spec.intensity, said or spec.modality, f"the percentile rule of {spec.name}")
    values = _some(volume.data)
    if values.min() == values.max():
        return IntensityChoice(spec.intensity, "CT", "Hounsfield window, since there is no contrast to spread")
    trouble = why_not_hounsfield(values)
    source = f"it is said to be {said}" if said else ""
    if said == "CT" and not trouble:
        return IntensityChoice(spec.intensity, "CT", f"Hounsfield window, since {source}")
    if not said and not trouble:
        return IntensityChoice(spec.intensity, "CT", "Hounsfield window, since its values can be Hounsfield units")
    low, high = robust_range(values)
    rule = Intensity("window", ((low, 0.0), (high, 1.0)))
    spread = f"spread from {low:g} to {high:g} (percentiles of the scan and of the body)"
    if said and said != "CT":
        return IntensityChoice(rule, said, f"{spread}, since {source}")
    if said == "CT":
        text = f"the scan is said to be CT, but {trouble}: it was {spread}; convert it to Hounsfield units"
        return IntensityChoice(rule, "CT", f"{spread}, since {trouble}", text)
    text = ""
    if looks_like_ct(values):
        text = f"{trouble}: it was {spread}. If this is a CT, convert it to Hounsfield units, or matching suffers"
    return IntensityChoice(rule, "other", f"{spread}, since {trouble}", text)


def robust_range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Intensities of air and of the brightest tissue of a scan without units.

    Args:
        values: (N,) float64, voxels of the scan, not all equal.
    """
    low, top = (float(v) for v in np.percentile(values, (LOW_PERCENTILE, HIGH_PERCENTILE)))
    body = values[values > low + BODY_SHARE * (top - low)]
    high = float(np.percentile(body, HIGH_PERCENTILE)) if len(body) else top
    return (low, high) if high > low else (float(values.min()), float(values.max()))


def why_not_hounsfield(values: NDArray[np.float64]) -> str:
    """Why values cannot be Hounsfield units, in words; "" if they can.

    Args:
        values: (N,) float64, voxels of the scan.
    """
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        return "its values lie between 0 and 1, which are not Hounsfield units"
    if low >= 0 and high <= 255:
        return f"its values lie between {low:g} and {high:g}, as of 8 bits, which are not Hounsfield units"
    if low >= 0 and np.percentile(values, 50) > 20000:
        return f"its values lie between {low:g} and {high:g}, as if 32768 had been added to Hounsfield units"
    if low < LOWEST_HU or high > HIGHEST_HU:
        return f"its values lie between {low:g} and {high:g}, beyond Hounsfield units"
    if float((values < BELOW_WATER_HU).mean()) < LEAST_BELOW:
        return (
            f"its values lie between {low:g} and {high:g}, with neither air nor fat below {BELOW_WATER_HU:g}, "
            "which are not Hounsfield units"
        )
    return ""


def looks_like_ct(values: NDArray[np.float64]) -> bool:
    """Whether values that are not Hounsfield units may still be those of a CT.

    Recognised are the usual ways in which CT scans lose their units: scaled to 0..1, scaled to 8 bits, or with 1024 or
    32768 added.

    Args:
        values: (N,) float64, voxels of the scan.
    """
    low, high = float(values.min()), float(values.max())
    spoilt = (low >= 0 and high <= 1) or (low >= 0 and high <= 255) or (low >= 0 and np.percentile(values, 50) > 20000)
    if spoilt:
        return True
    # With 1024 added, water lies at 1024 and fat at 924: most of the body within 15 % of that.
    body = values[values > 300]
    return bool(low >= -50 and len(body) > 0.05 * len(values) and (np.abs(body - 1040.0) < 160).mean() > 0.6)


def _some(data: NDArray[np.generic]) -> NDArray[np.float64]:
    """(N,) float64, every n-th voxel."""
    flat = data.reshape(-1)
    return flat[:: max(1, flat.size // _LOOKED_AT) | 1].astype(np.float64)
