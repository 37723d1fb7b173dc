"""Flags: words in the table that mark results which a person should check, set by fixed thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Flag -> its meaning, for the report.
FLAGS = {
    "few_ok": "fewer than half of the points have the verdict ok",
    "nothing_in_common": "the scans agree nowhere: no match can be trusted",
    "folding": "the transform folds in more than 0.1 % of the body",
    "field_of_view": "less than half of the body, or of the points, has a counterpart in the moving scan",
    "inverse": "the residual of transform and inverse is above 1 mm at its 95th percentile",
    "far_from_truth": "the median distance of points from their true positions is above 10 mm",
    "lesions_uncertain": "a lesion is uncertain in at least one scan",
}

_OK, _FOLDING, _SEEN, _INVERSE_MM, _TRUTH_MM = 0.5, 0.001, 0.5, 1.0, 10.0


def flags_of(row: Mapping[str, Any]) -> list[str]:
    """Flags of a row of the table, in the order of `FLAGS`.

    Args:
        row: Column -> value, see `table`; unknown values may be missing or None.
    """

    def above(name: str, limit: float) -> bool:
        value = row.get(name)
        return value is not None and value > limit

    points = row.get("points") or 0
    supported = row.get("supported_share")
    found = {
        "few_ok": points > 0 and row["ok"] < _OK * points,
        "nothing_in_common": bool(row.get("nothing_in_common")),
        "folding": above("folding", _FOLDING),
        "field_of_view": (supported is not None and supported < _SEEN)
        or (points > 0 and row["outside"] > (1 - _SEEN) * points),
        "inverse": above("inverse_residual_mm", _INVERSE_MM),
        "far_from_truth": above("tre_median_mm", _TRUTH_MM),
        "lesions_uncertain": above("lesions_uncertain", 0),
    }
    return [name for name in FLAGS if found[name]]
