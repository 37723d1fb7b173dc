"""`FollowUpReview`: results of `meddift track`, and a person's review of each link."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from meddift.errors import MissingFileError, OptionsError
from meddift.pipeline import Matcher
from meddift.system.atomic import write_text
from meddift.tracking.candidates import Candidate
from meddift.tracking.chart import HEIGHT, LEFT, RIGHT, WIDTH, Curve, draw
from meddift.tracking.crops import AROUND, LEAST_MM, PIXELS, Crop, best_plane, crop
from meddift.tracking.outputs import is_follow_up
from meddift.tracking.page import STATES
from meddift.tracking.result import NOTE
from meddift.tracking.tables import LESION_COLUMNS, as_tsv, read_review, read_table
from meddift.tracking.timepoints import parse_date
from meddift.viewer.opened import OpenedScan
from meddift.viewer.session import private_names
from meddift.volume import Volume

TABLE = "lesions.tsv"
#: Number of steps that can be undone.
STEPS = 200

Rows = tuple[Mapping[str, str], ...]


class FollowUpReview:
    """Results of `meddift track`, for review and correction.

    Args:
        folder: Output folder of `meddift track`.
        matcher: Encodes scans when points are matched.

    Attributes:
        names: Names of the time points, in order of time.
        scans: One scan per time point, with ids t0, t1, ...

    Raises:
        MissingFileError: if the folder holds no such results, or a scan no longer exists.
        OptionsError: if a file of the results is malformed.
    """

    def __init__(self, folder: Path, matcher: Matcher) -> None:
        if not is_follow_up(folder) or not (folder / TABLE).is_file():
            raise MissingFileError(f"{folder} holds no result of `meddift track`: give the folder of its --out")
        try:
            told = json.loads((folder / "lesions.json").read_text(encoding="utf-8"))
            points = [
                (str(p["name"]), str(p["date"]), str(p["scan"]), str(p["scan_sha256"])) for p in told["time_points"]
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OptionsError(
                f"{folder / 'lesions.json'} cannot be read ({type(error).__name__}: {error}); run `meddift track` anew"
            ) from error
        self._folder, self._matcher = folder, matcher
        self.names = [name for name, *_ in points]
        self._days = [day for _, day, *_ in points]
        read_review(folder / TABLE, self.names)  # raises an error if the table is malformed
        self._rows: Rows = tuple(read_table(folder / TABLE))
        self._saved, self._past = self._rows, list[Rows]()
        self._lock = threading.RLock()
        self._masks: dict[int, Volume | None] = {}
        self.scans = [self._opened(k, day, scan, digest) for k, (_, day, scan, digest) in enumerate(points)]

    # ------------------------------------------------------------------ what is told

    def as_dict(self) -> dict[str, Any]:
        """Time points, lesions and reviews, ready for JSON; the name of the patient is left out."""
        with self._lock:
            rows = self._rows
            lesions = list(dict.fromkeys(row["lesion_id"] for row in rows))
            cells = [{**{k: v for k, v in row.items() if k != "subject"}, **self._numbers(row)} for row in rows]
            points = [
                {"scan": scan.id, "name": name, "day": day, "labels": self._labels(name)}
                for scan, name, day in zip(self.scans, self.names, self._days, strict=True)
            ]
            return {
                "note": NOTE,
                "time_points": points,
                "lesions": lesions,
                "rows": cells,
                "states": STATES,
                "chart": self._chart(lesions),
                "saved": rows == self._saved,
                "can_undo": bool(self._past),
            }

    def _numbers(self, row: Mapping[str, str]) -> dict[str, Any]:
        """A row with cells converted to numbers, and the number of its time point."""

        def number(text: str) -> float | None:
            return float(text) if text else None

        place = [number(row[name]) for name in ("x_ras", "y_ras", "z_ras")]
        sizes = {name: number(row.get(name, "")) for name in ("long_mm", "short_mm", "volume_mm3")}
        return {"place": None if None in place else place, "number": self.names.index(row["timepoint"]), **sizes}

    def _labels(self, name: str) -> list[str]:
        """Labels of lesions in the mask of a time point."""
        found = [part for row in self._rows if row["timepoint"] == name for part in row["label"].split("+") if part]
        return list(dict.fromkeys(found))

    def _chart(self, lesions: Sequence[str]) -> dict[str, Any] | None:
        """Layout of a chart of the longest diameters over time."""
        dates = [parse_date(day) for day in self._days]
        known = [date for date in dates if date is not None]
        times = [float(k) for k in range(len(dates))]
        if len(known) == len(dates):
            times = [(date - known[0]).total_seconds() for date in known]
        curves = []
        for lesion in lesions:
            points = []
            for time, name in zip(times, self.names, strict=True):
                row = self._find(lesion, name)
                if row is not None and row["state"] == "disappeared":
                    points.append((time, 0.0))
                elif row is not None and row.get("long_mm"):
                    points.append((time, float(row["long_mm"])))
            curves.append(Curve(lesion, tuple(points)))
        titles = [f"{name} {day}".strip() for name, day in zip(self.names, self._days, strict=True)]
        chart = draw(curves, list(zip(times, titles, strict=True)))
        size = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT}
        return None if chart is None else {**asdict(chart), **size}

    def _find(self, lesion: str, timepoint: str) -> Mapping[str, str] | None:
        for row in self._rows:
            if row["lesion_id"] == lesion and row["timepoint"] == timepoint:
                return row
        return None

    # ------------------------------------------------------------------ a person's word

    def decide(self, lesion: str, timepoint: int, *, review: str, label: str | None, state: str | None) -> None:
        """Record the review of one lesion at one time point.

        Args:
            lesion: Number of the lesion.
            timepoint: Number of the time point.
            review: "confirmed", "corrected", "rejected", or "proposed" for no review.
            label: Labels of the lesion in the mask, joined by "+"; None keeps them, "" means that it is absent.
            state: State of the lesion, see `meddift track`; None keeps it, or derives it from a new label.

        Raises:
            OptionsError: if the lesion or the label does not exist at this time point.
        """
        with self._lock:
            row = self._row(lesion, timepoint)
            changed = {**row, "review": review}
            if label is not None and label != row["label"]:
                parts = [part.strip() for part in label.split("+") if part.strip()]
                unknown = [part for part in parts if part not in self._labels(self.names[timepoint])]
                if unknown:
                    raise OptionsError(f"nothing is called {', '.join(unknown)} at {self.names[timepoint]}")
                changed["label"] = "+".join(parts)
                usual = "disappeared" if not parts else "split" if len(parts) > 1 else "matched"
                changed["state"] = row["state"] if row["state"] in ("baseline", "new") and parts else usual
                changed["review"] = "corrected" if review == "confirmed" else review
            if state is not None:
                changed["state"] = state
            self._past = [*self._past[-STEPS + 1 :], self._rows]
            self._rows = tuple(changed if other is row else other for other in self._rows)

    def undo(self) -> None:
        """Undo the last decision."""
        with self._lock:
            if self._past:
                self._rows = self._past.pop()

    def save(self) -> str:
        """Write the table that `meddift track --review` reads.

        Returns:
            Name of the file.

        Raises:
            OutputError: if the file cannot be written.
        """
        with self._lock:
            rows = self._rows
        write_text(as_tsv(rows, [c for c in LESION_COLUMNS if c in rows[0]] if rows else LESION_COLUMNS), self._table)
        with self._lock:
            self._saved = rows
        return TABLE

    @property
    def _table(self) -> Path:
        return self._folder / TABLE

    def _row(self, lesion: str, timepoint: int) -> Mapping[str, str]:
        found = self._find(lesion, self.names[timepoint]) if timepoint < len(self.names) else None
        if found is None:
            raise OptionsError(f"there is no lesion {lesion} at time point {timepoint}")
        return found

    # ------------------------------------------------------------------ scans and pictures

    def _opened(self, k: int, day: str, scan: str, digest: str) -> OpenedScan:
        path = _found(scan, self._folder, self.names[k])

        def read() -> Any:
            encoded = self._matcher.scan(path)
            if digest and encoded.digest != digest:
                raise OptionsError(
                    f"{path} is another scan than the one in which lesions were followed; run `meddift track` again"
                )
            return encoded

        return OpenedScan(f"t{k}", f"{self.names[k]} {day}".strip(), read, private_names(path))

    def picture(self, lesion: str, timepoint: int) -> bytes:
        """Draw a lesion, or its expected position, in the acquisition plane with the outline of its mask.

        Args:
            lesion: Number of the lesion.
            timepoint: Number of the time point.

        Returns:
            An SVG file.

        Raises:
            OptionsError: if the lesion does not exist at this time point, or its position is unknown.
        """
        row = self._row(lesion, timepoint)
        place = self._numbers(row)["place"]
        if place is None:
            raise OptionsError(f"the place of lesion {lesion} at {self.names[timepoint]} is not known")
        scan = self.scans[timepoint].encoded.volume
        sizes = [float(r["long_mm"]) for r in self._rows if r["lesion_id"] == lesion and r.get("long_mm")]
        mask = self._mask(timepoint)
        parts = []
        if mask is not None:
            voxels = np.argwhere(mask.data == int(lesion))
            if len(voxels):
                center = mask.grid.index_to_world(voxels.astype(np.float64)).mean(axis=0)
                parts, place = [Candidate(lesion, center, voxels=voxels)], center.tolist()
        drawn = crop(
            scan,
            np.array(place),
            axis=self._axis,
            width_mm=max(LEAST_MM, AROUND * max(sizes, default=0.0)),
            parts=parts,
            mask=None if mask is None else mask.grid,
        )
        return _svg(drawn).encode("utf-8")

    @cached_property
    def _axis(self) -> int:
        return best_plane(self.scans[0].encoded.grid)

    def _mask(self, k: int) -> Volume | None:
        """The label map of a time point in which each lesion has its own number; None if there is none."""
        if k not in self._masks:
            from meddift.io import read_volume

            path = self._folder / f"{self.names[k]}_lesions.nii.gz"
            self._masks[k] = read_volume(path, check=False) if path.is_file() else None
        return self._masks[k]


def _found(scan: str, folder: Path, name: str) -> Path:
    """Path of a scan, relative to the current folder or to the folder of the results."""
    for root in (Path(), folder, *folder.absolute().parents):
        if (root / scan).exists():
            return root / scan
    raise MissingFileError(
        f"the scan of time point {name}, {scan}, is not there any more; call the viewer from the folder in which "
        "`meddift track` was called"
    )


def _svg(drawn: Crop) -> str:
    """A crop as an SVG file."""
    parts = [f'<image href="{drawn.png}" width="{PIXELS}" height="{PIXELS}"/>']
    if drawn.outline:
        parts.append(f'<path d="{drawn.outline}" fill="none" stroke="#ffb000" stroke-width="1"/>')
    if drawn.cross is not None:
        x, y = drawn.cross
        parts.append(f'<path d="M{x - 6} {y}H{x + 6}M{x} {y - 6}V{y + 6}" stroke="#ffb000" stroke-width="1"/>')
    space = "http://www.w3.org/2000/svg"
    return f'<svg xmlns="{space}" viewBox="0 0 {PIXELS} {PIXELS}">{"".join(parts)}</svg>'
