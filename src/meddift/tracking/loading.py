"""Reading the scan and lesions of each time point, with few scans in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from meddift.errors import MissingFileError, OptionsError
from meddift.points import Points
from meddift.tracking.candidates import (
    Candidate,
    Candidates,
    candidates_of_mask,
    candidates_of_points,
    joined,
)
from meddift.tracking.tables import read_table
from meddift.tracking.timepoints import TimePoint
from meddift.volume import Volume


def check_files(points: Sequence[TimePoint]) -> None:
    """Check before any other work that all files exist.

    Raises:
        MissingFileError: if one does not.
    """
    for point in points:
        for path in point.files:
            if not path.exists():
                raise MissingFileError(f"time point {point.name}: {path} does not exist")


def read_scan(point: TimePoint) -> Volume:
    """Read the scan of a time point."""
    from meddift.io import read_volume

    return point.scan if isinstance(point.scan, Volume) else read_volume(point.scan)


def read_lesions(point: TimePoint, scan: Volume, *, components: bool, minimum_mm3: float) -> Candidates:
    """Read all lesions of a time point.

    Args:
        point: The time point.
        scan: Its scan.
        components: See `candidates_of_mask`.
        minimum_mm3: See `candidates_of_mask`.

    Raises:
        MeddiftError: if a file cannot be read or does not belong to the scan.
    """
    parts = []
    if point.lesions is not None:
        mask, name = _mask(point.lesions, point.scan)
        parts.append(candidates_of_mask(mask, scan, name=name, components=components, minimum_mm3=minimum_mm3))
    if point.points is not None:
        parts.append(_points(point.points, scan))
    if point.lesion_table is not None:
        parts.append(_table(point, scan))
    return joined(parts) if parts else Candidates(given=False)


def _mask(given: Path | Volume, scan: Path | Volume) -> tuple[Volume, str]:
    from meddift.io import read_volume
    from meddift.io.dicom_objects import is_segmentation, read_segmentation

    if isinstance(given, Volume):
        return given, "the mask"
    if is_segmentation(given):
        series = scan if isinstance(scan, Path) and scan.is_dir() else None
        return read_segmentation(given, series=series), str(given)
    return read_volume(given, check=False), str(given)


def _points(given: Path | Points, scan: Volume) -> Candidates:
    from meddift.io import read_points

    if isinstance(given, Points):
        return candidates_of_points(given, scan)
    return candidates_of_points(read_points(given, grid=scan.grid), scan, name=str(given))


def _table(point: TimePoint, scan: Volume) -> Candidates:
    """Positions of lesions in a `lesions.tsv` written by meddift; its sizes are used only with `--review`."""
    path = point.lesion_table
    rows = [row for row in read_table(path or "") if row.get("timepoint", point.name) in (point.name, "")]
    needed = ("lesion_id", "x_ras", "y_ras", "z_ras")
    if rows and any(name not in rows[0] for name in needed):
        raise OptionsError(f"{path} needs the columns {', '.join(needed)}")
    items = []
    for number, row in enumerate(rows, start=1):
        cells = [row[name] for name in needed[1:]]
        if not all(cells):
            continue  # a lesion that is absent at this time point
        try:
            place = [float(cell) for cell in cells]
        except ValueError as error:
            raise OptionsError(f"{path}, row {number}: {', '.join(cells)} is not a position in mm") from error
        if row.get("state", "matched") in ("disappeared", "outside"):
            continue
        items.append((row["lesion_id"], place, row.get("kind", ""), row.get("organ", "")))
    found = candidates_of_points(Points([item[1] for item in items], tuple(item[0] for item in items)), scan)  # type: ignore[arg-type]
    kept = {item[0]: item for item in items}
    told = tuple(
        Candidate(one.label, one.center, kind="" if kept[one.label][2] == "new" else kept[one.label][2],
                  organ=kept[one.label][3])
        for one in found.items
    )  # fmt: skip
    return Candidates(told, None, True, found.notes)


class Encoded:
    """Encoded scans, of which only a few are in memory at a time.

    Args:
        points: The time points.
        encode: Reads and encodes a scan.
        most: Number of scans held in memory: the first one, which is used at every step, and the last two.
    """

    def __init__(self, points: Sequence[TimePoint], encode: Callable[[Any], Any], *, most: int = 3) -> None:
        self._points, self._encode, self._most = points, encode, most
        self._held: dict[int, Any] = {}

    def get(self, number: int, *, beside: int) -> Any:
        """The encoded scan of a time point; frees others but `beside`, the least recently used first.

        The first scan is freed last, since every step uses it.
        """
        scan = self._held.pop(number, None)
        let_go = sorted((k for k in self._held if k != beside), key=lambda k: k == 0)
        for k in let_go[: max(len(self._held) + 1 - self._most, 0)]:
            del self._held[k]
        self._held[number] = self._encode(self._points[number].scan) if scan is None else scan
        return self._held[number]
