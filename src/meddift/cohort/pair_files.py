"""`PairResult`: the outputs of one pair, which are a row of the table and files."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from meddift.cohort.cases import Case
from meddift.cohort.derivative import Derivative
from meddift.matching.verdict import NO_AGREEMENT
from meddift.system.atomic import write_json, write_text

if TYPE_CHECKING:
    from meddift.matching import Matches
    from meddift.pipeline import Pair
    from meddift.points import Points
    from meddift.registration import Registration

Writer = Callable[[Path], None]

#: Column of the table of points -> its description.
_POINT_COLUMNS = {
    "label": "Label of the point, as given.",
    **{f"fixed_{axis}": f"World {axis} in the fixed scan, RAS, mm." for axis in "xyz"},
    **{f"moving_{axis}": f"World {axis} in the moving scan, RAS, mm; n/a if no match was found." for axis in "xyz"},
    "similarity": "Cosine similarity of the descriptors, weighted mean over levels, -1 to 1.",
    "inverse_error_mm": "Inverse-consistency error, mm: from the point to where its match leads back.",
    "verdict": "ok, uncertain, or outside: no counterpart in the moving scan.",
    "reason": "Why the verdict is not ok.",
}


@dataclass(frozen=True, eq=False)
class PairResult:
    """Results of one pair.

    Attributes:
        case: The case.
        pair: The two scans.
        matches: The matched points; None if "match" is no step of the case.
        truth: True positions of the points on the moving scan, world RAS mm; None if unknown.
        registration: The registration; None if "register" is no step of the case.
    """

    case: Case
    pair: Pair
    matches: Matches | None
    truth: Points | None
    registration: Registration | None

    def row(self) -> dict[str, Any]:
        """Column of the cohort's table -> value, for all columns that are known."""
        row: dict[str, Any] = {}
        found, matches = self.registration, self.matches
        if found is not None:
            row |= {
                "supported_share": found.supported_share,
                "folding": found.folding,
                "sd_log_jacobian": _finite(found.sd_log_jacobian),
                "inverse_residual_mm": _finite(found.inverse_residual.p95),
            }
        if matches is not None:
            verdicts = [str(verdict) for verdict in matches.verdict]
            row |= {"points": len(verdicts), **{v: verdicts.count(v) for v in ("ok", "uncertain", "outside")}}
            row["nothing_in_common"] = any(r.code == NO_AGREEMENT for reasons in matches.reasons for r in reasons)
            if self.truth is not None:
                from meddift.pipeline.accuracy import measure_accuracy

                errors = measure_accuracy(matches, self.truth, self.pair.moving.grid).all
                row |= {
                    "tre_mean_mm": errors.mean, "tre_median_mm": errors.median, "tre_max_mm": errors.max,
                    "within_5mm": errors.within_5mm,
                }  # fmt: skip
        return row

    def writers(self, place: Derivative, files: Mapping[str, bool]) -> dict[Path, Writer]:
        """The files to write.

        Args:
            place: Paths of the files.
            files: Optional files by name, and whether to write each; see `plan.Files`.

        Returns:
            Path -> function that writes the file.
        """
        writers: dict[Path, Writer] = {}
        if self.matches is not None:
            writers[place.points()] = partial(write_text, _points_table(self.matches))
            described = {name: {"Description": words} for name, words in _POINT_COLUMNS.items()}
            writers[place.points(".json")] = partial(write_json, described)
            writers[place.points(".mrk.json")] = self.matches.save
        if self.registration is not None:
            writers |= self._transforms(self.registration, place, inverse=files["inverse"])
            writers |= self._images(self.registration, place, files)
        if files["pictures"]:
            writers[place.picture] = self._draw
        return writers

    def _transforms(self, found: Registration, place: Derivative, *, inverse: bool) -> dict[Path, Writer]:
        from meddift.io import write_transform
        from meddift.io.transform_sidecar import transform_sidecar

        fixed, moving = self.pair.fixed.volume, self.pair.moving.volume
        writers: dict[Path, Writer] = {}
        both = ((found.transform, False), (found.inverse, True)) if inverse else ((found.transform, False),)
        for transform, backwards in both:
            told = {"registration": found.summary(), "provenance": dict(found.provenance)}
            told["registration"].pop("timing")
            content = transform_sidecar(fixed, moving, inverse=backwards, more=told)
            writers[place.transform(inverse=backwards)] = partial(write_transform, transform)
            writers[place.transform(inverse=backwards, suffix=".json")] = partial(write_json, content)
        return writers

    def _images(self, found: Registration, place: Derivative, files: Mapping[str, bool]) -> dict[Path, Writer]:
        from meddift.io import read_volume, write_volume
        from meddift.registration import warp_labels, warp_volume

        grid = self.pair.fixed.grid
        writers: dict[Path, Writer] = {}
        if files["warped"]:
            moved = warp_volume(self.pair.moving.volume, found.transform, grid)
            writers[place.image("warped")] = partial(write_volume, moved)
        if files["jacobian"]:
            writers[place.image("jacobian")] = partial(write_volume, found.determinant_on(grid))
        if "labels" in self.case.files:
            labels = warp_labels(read_volume(self.case.files["labels"], check=False), found.transform, grid)
            writers[place.image("labels")] = partial(write_volume, labels)
        return writers

    def _draw(self, path: Path) -> None:
        from meddift.pipeline.picture import draw_matches, draw_registration, save_picture

        fixed, moving = self.pair.fixed.volume, self.pair.moving.volume
        if self.registration is not None:
            save_picture(draw_registration(fixed, moving, self.registration), path)
        elif self.matches is not None:
            save_picture(draw_matches(fixed, moving, self.matches, truth=self.truth), path)


def _points_table(matches: Matches) -> str:
    """The matched points as tab-separated text; missing values are `n/a`, as BIDS requires."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(_POINT_COLUMNS)
    for row in matches.rows():
        places = [_number(value) for side in ("fixed", "moving") for value in row[side] or (None, None, None)]
        values = [_number(row["similarity"]), _number(row["inverse_error_mm"])]
        writer.writerow([row["label"], *places, *values, row["verdict"], row["reason"] or "n/a"])
    return stream.getvalue()


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
