"""Values of DICOM data sets, parsed here from their bytes.

pydicom's own conversion takes most of the time of reading thousands of files, and raises an error where a value is not
a number; here such values become NaN, and the caller reports them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The tags that are read, by the names used here.
TAGS = {
    "charset": 0x00080005, "image_type": 0x00080008, "sop_class": 0x00080016, "sop": 0x00080018,
    "time": 0x00080032, "modality": 0x00080060, "description": 0x0008103E, "thickness": 0x00180050, "kvp": 0x00180060,
    "echo_time": 0x00180081, "echo": 0x00180086, "trigger": 0x00181060, "kernel": 0x00181210, "b_value": 0x00189087,
    "series": 0x0020000E, "acquisition": 0x00200012, "instance": 0x00200013, "position": 0x00200032,
    "orientation": 0x00200037, "frame_of_reference": 0x00200052, "temporal": 0x00200100,
    "samples": 0x00280002, "photometric": 0x00280004, "frames": 0x00280008, "rows": 0x00280010,
    "columns": 0x00280011, "spacing": 0x00280030, "allocated": 0x00280100, "stored": 0x00280101, "high": 0x00280102,
    "signed": 0x00280103, "intercept": 0x00281052, "slope": 0x00281053, "table": 0x00283000,
    "shared": 0x52009229, "per_frame": 0x52009230,
}  # fmt: skip


class DicomValues:
    """Values of a pydicom data set, taken from their bytes."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def raw(self, name: str) -> Any:
        """Bytes, or what pydicom made of them already; None where the value is missing or empty."""
        element = self._dataset._dict.get(TAGS[name])
        value = None if element is None else element.value
        return None if value in (b"", "", None) else value

    def text(self, name: str) -> str:
        """Text of the basic character set."""
        value = self.raw(name)
        if value is None:
            return ""
        text = value.decode("ascii", errors="replace") if isinstance(value, bytes) else str(value)
        return text.strip(" \0")

    def decoded(self, name: str) -> str:
        """Text in the character set that the file names; UTF-8 or Latin-1 where it names none."""
        value = self.raw(name)
        if not isinstance(value, bytes):
            return "" if value is None else str(value).strip(" \0")
        if self.raw("charset") is None:
            try:
                return value.decode("utf-8").strip(" \0")
            except UnicodeDecodeError:
                return value.decode("latin-1").strip(" \0")
        try:
            return str(self._dataset[TAGS[name]].value).strip(" \0")
        except Exception:  # character sets that nobody knows
            return value.decode("latin-1").strip(" \0")

    def number(self, name: str, default: float = float("nan")) -> float:
        """A decimal number; `default` where it is missing, NaN where it is no number."""
        values = self.numbers(name, 1)
        return default if self.raw(name) is None else float(values[0])

    def numbers(self, name: str, count: int) -> NDArray[np.float64]:
        """(count,) decimal numbers, NaN where they are missing or no numbers."""
        value = self.raw(name)
        result = np.full(count, np.nan)
        if value is None:
            return result
        if isinstance(value, bytes):
            words: list[Any] = value.strip(b" \0").split(b"\\")
        else:
            words = [value] if isinstance(value, str | int | float) else list(value)
        if len(words) != count:
            return result
        for k, word in enumerate(words):
            try:
                result[k] = float(word)
            except (TypeError, ValueError, OverflowError):
                return np.full(count, np.nan)
        return result

    def integer(self, name: str, default: int = 0) -> int:
        """An unsigned short number."""
        element = self._dataset._dict.get(TAGS[name])
        value = None if element is None else element.value
        if isinstance(value, bytes):
            if len(value) < 2:
                return default
            return int.from_bytes(value[:2], "little" if element.is_little_endian else "big")
        return value if isinstance(value, int) else default


class FrameValues:
    """Functional groups of one frame: its own, else those that all frames share."""

    def __init__(self, own: Any, shared: Any) -> None:
        self._places = [place for place in (own, shared) if place is not None]

    def item(self, sequence: str) -> Any:
        """The one item of a sequence, or None."""
        for place in self._places:
            items = place.get(sequence)
            if items:
                return items[0]
        return None

    def numbers(self, sequence: str, keyword: str, count: int) -> NDArray[np.float64]:
        """(count,) numbers, NaN where they are missing or no numbers."""
        item = self.item(sequence)
        value = None if item is None else item.get(keyword)
        try:
            values = np.array([float(word) for word in value or ()])
        except (TypeError, ValueError, OverflowError):
            return np.full(count, np.nan)
        return values if len(values) == count else np.full(count, np.nan)
