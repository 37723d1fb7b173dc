"""`OpenedScan`: a scan of the viewer, read on first use; the page knows its id and title, but no path or name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from meddift.pipeline.scan import EncodedScan
from meddift.system.once import known, once
from meddift.viewer.copies import BrowserCopy, browser_copy
from meddift.viewer.planes import Box
from meddift.viewer.windows import Window, windows_of


class OpenedScan:
    """One scan of a session.

    Args:
        id: Id of the scan in requests.
        title: Title on the page: role or time point, never the name of a file or patient.
        read: Function that reads the scan; called once.
        private: Texts that must not appear on the page: path and name of the file.

    Attributes:
        id: As above.
        title: As above.
        private: As above.
    """

    def __init__(self, id: str, title: str, read: Callable[[], EncodedScan], private: tuple[str, ...] = ()) -> None:
        self.id, self.title, self.private = id, title, private
        self._read = read

    @once
    def encoded(self) -> EncodedScan:
        """The scan with its features; read on first use."""
        return self._read()

    @once
    def copy(self) -> BrowserCopy:
        """Copy of the scan for the browser."""
        return browser_copy(self.encoded.volume)

    @once
    def windows(self) -> tuple[Window, ...]:
        """Display windows, the default first."""
        return windows_of(self.encoded.volume, hounsfield=self.encoded.intensity.hounsfield)

    @property
    def is_read(self) -> bool:
        """Whether the scan has been read."""
        return known(self, "encoded")

    def as_dict(self) -> dict[str, Any]:
        """Properties of the scan for the page, ready for JSON; reads the scan."""
        volume, grid, copy = self.encoded.volume, self.encoded.grid, self.copy
        box = Box.around(grid)
        # From slice to slice along each axis of the world: the spacing of the index axis that runs closest to it.
        steps = [float(grid.spacing[int(np.argmax(np.abs(row)))]) for row in grid.direction]
        return {
            "id": self.id,
            "title": self.title,
            "shape": list(grid.shape),
            "spacing": [float(v) for v in grid.spacing],
            "orientation": grid.orientation,
            "oblique_degrees": float(grid.obliqueness_degrees),
            "modality": volume.modality or ("CT" if self.encoded.intensity.hounsfield else ""),
            "unit": "HU" if self.encoded.intensity.hounsfield else "",
            "notes": list(volume.notes),
            "box": asdict(box),
            "center": [float(v) for v in grid.center],
            "steps": steps,
            "windows": [asdict(window) for window in self.windows],
            "copy": {
                "bytes": len(copy.nifti),
                "shape": list(copy.shape),
                "spacing": list(copy.spacing),
                "scale": copy.scale,
                "offset": copy.offset,
                "reduced": copy.reduced,
            },
        }
