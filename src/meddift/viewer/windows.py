"""Display windows: the intensities drawn black and white."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from meddift.volume import Volume

#: Common CT windows: name -> level and width, HU.
_CT = {
    "Soft tissue": (40.0, 400.0),
    "Lung": (-600.0, 1500.0),
    "Bone": (500.0, 2000.0),
    "Liver": (80.0, 150.0),
    "Brain": (40.0, 80.0),
}
#: Approximate number of voxels from which quantiles are computed.
_SAMPLED = 200_000


@dataclass(frozen=True)
class Window:
    """A display window.

    Attributes:
        name: Name shown on the page.
        low: Intensity drawn black, in the units of the scan.
        high: Intensity drawn white, in the units of the scan.
    """

    name: str
    low: float
    high: float


def windows_of(volume: Volume, *, hounsfield: bool) -> tuple[Window, ...]:
    """Display windows for a scan, the default first.

    Args:
        volume: The scan.
        hounsfield: Whether its values are Hounsfield units.
    """
    if hounsfield:
        return tuple(Window(name, level - width / 2, level + width / 2) for name, (level, width) in _CT.items())
    flat = volume.data.reshape(-1)
    values = np.asarray(flat[:: max(1, flat.size // _SAMPLED)], dtype=np.float64)
    values = values[np.isfinite(values)]
    tissue = values[values > values.min()] if values.size and values.max() > values.min() else np.array([0.0, 1.0])

    def range_of(name: str, low: float, high: float) -> Window:
        first, last = (float(v) for v in np.percentile(tissue, [low, high]))
        return Window(name, first, last if last > first else first + 1.0)

    return range_of("Usual", 1, 99), range_of("Wide", 0, 100), range_of("Narrow", 20, 90)
