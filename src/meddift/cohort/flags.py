"""What a person should look at: rules with numbers, said by a word in the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Flag -> what it means, for the report.
FLAGS = {
    "few_ok": "fewer than half of the points have the verdict ok",
    "nothing_in_common": "the scans agree nowhere: no point can be trusted",
    "folding": "the transform folds in more than 0.1 % of the body",
    "field_of_view": "less than half of the body, or of the points, has a counterpart in the moving scan",
    "inverse": "the transform and its inverse do not belong together: more than 1 mm apart at 95 %",
    "far_from_truth": "half of the points are more than 10 mm from their true places",
    "lesions_uncertain": "of a lesion nothing certain can be said in some scan",
}

_OK, _FOLDING, _SEEN, _INVERSE_MM, _TRUTH_MM = 0.5, 0.001, 0.5, 1.0, 10.0


def flags_of(row: Mapping[str, Any]) -> list[str]:
    """Flags of a row of the table, in the order of `FLAGS`.

    Args:
        row: Cells by column; what is not known may be missing.
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
