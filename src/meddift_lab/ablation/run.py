"""Running an ablation: every variant on every case, resumable."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from meddift.errors import MeddiftError, OptionsError, OutputError
from meddift.system.atomic import write_json
from meddift.system.progress import Progress
from meddift_lab.ablation.variants import Variant, base_options, make_variants
from meddift_lab.running.case import Case, PointSet, StoredCase, store_case
from meddift_lab.running.folder import claim_run_folder
from meddift_lab.running.runner import LAYOUT, code_digest, read_result


def run_ablation(
    cases: Sequence[Case],
    folder: Path,
    *,
    base: str = "default",
    model: str = "builtin",
    sweeps: Sequence[str] | None = None,
    points: int | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Match the points of every case with every variant, leaving out what is done already.

    The folder then holds `cases/NAME/`, `latents/` and `ablation/BASE/VARIANT/CASE.json`.

    Args:
        cases: The cases.
        folder: Output folder; created if it does not exist.
        base: One of `BASES`.
        model: Name of the model.
        sweeps: Names among `SWEEPS`; None = all of them.
        points: How many points of each kind are asked, evenly spread over the list; None = all of them.
        on_progress: Called as work goes on.

    Raises:
        OptionsError: if there is no case, or a base or a sweep does not exist.
        OutputError: if the folder cannot be written to.
        MeddiftError: if a case cannot be read or made, or the model is not on this machine.
    """
    from meddift.models import find_spec, load_model
    from meddift.models.weights import locate_weights
    from meddift_lab.ablation.encoding import Encodings, LatentKeeper

    if not cases:
        raise OptionsError("an ablation needs at least one case")
    spec = find_spec(model)
    tried = make_variants(base, spec, sweeps)
    report = on_progress or (lambda text, done: None)
    claim_run_folder(folder)
    weights = locate_weights(spec, None).digest()
    encodings: Encodings | None = None
    # Variants that need the same features stand together, so that these are computed once.
    tried.sort(key=lambda variant: json.dumps({k: variant.overrides.get(k) for k in _FEATURE_FIELDS}, sort_keys=True))
    total, done = len(cases) * len(tried), 0
    for case in cases:
        report(f"{case.name}: preparing", done / total)
        stored = _thinned(store_case(case, folder / "cases" / case.name), points)
        for variant in tried:
            path = folder / "ablation" / base / file_name(variant) / f"{case.name}.json"
            options = {**base_options(base, spec), **variant.overrides}
            key = _key(stored, model, weights, options)
            kept = read_result(path)
            if kept is None or kept["key"] != key:
                report(f"{case.name}: {variant.sweep} {variant.label}", done / total)
                if encodings is None:
                    keeper = LatentKeeper(load_model(spec, device="cpu"), folder / "latents")
                    encodings = Encodings(keeper, (*spec.defaults.levels, *spec.defaults.extra_levels))
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise OutputError(f"cannot write to {path.parent}: {error.strerror or error}") from error
                found = _matched(stored, model, options, encodings)
                write_json({**_head(stored, variant, base, model, weights, options, key), **found}, path)
            done += 1
    report("done", 1.0)


#: Fields that decide the features.
_FEATURE_FIELDS = ("timestep", "noise_samples", "shared_noise", "latent", "spacing")


def file_name(variant: Variant) -> str:
    """A folder name for a variant."""
    return f"{variant.sweep}-" + (re.sub(r"[^A-Za-z0-9.]+", "-", variant.label).strip("-") or "none")


def _thinned(case: StoredCase, count: int | None) -> StoredCase:
    """The case with at most `count` points of each kind."""
    if count is None:
        return case
    return replace(case, sets=tuple(thinned_set(points, count) for points in case.sets))


def thinned_set(points: PointSet, count: int) -> PointSet:
    """At most `count` points, evenly spread over the list."""
    rows = np.unique(np.linspace(0, len(points.fixed) - 1, min(count, len(points.fixed))).round().astype(np.int64))
    return PointSet(points.kind, points.fixed.subset(rows), points.moving.subset(rows), points.truth)


def _key(case: StoredCase, model: str, weights: str, options: dict[str, Any]) -> str:
    """sha256 of all that decides a result."""
    counts = [len(points.fixed) for points in case.sets]
    parts = [LAYOUT, case.digest, counts, model, weights, code_digest(), options]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _head(
    case: StoredCase, variant: Variant, base: str, model: str, weights: str, options: dict[str, Any], key: str
) -> dict[str, Any]:
    return {
        "layout": LAYOUT,
        "key": key,
        "case": case.name,
        "case_digest": case.digest,
        "base": base,
        "sweep": variant.sweep,
        "label": variant.label,
        "model": model,
        "weights": weights,
        "options": options,
        "points": [len(points.fixed) for points in case.sets],
    }


def _matched(case: StoredCase, model: str, options: dict[str, Any], encodings: Any) -> dict[str, Any]:
    """Match the points of one case; a failure is a result too."""
    from meddift.io import read_volume
    from meddift_lab.ablation.encoding import AblationMatcher

    started = time.perf_counter()
    # A radius needs a prior: where a variant takes the prior away, its radius goes too.
    chosen = {name: tuple(value) if name == "levels" else value for name, value in options.items()}
    if chosen.get("prior") == "none":
        chosen.pop("search_radius_mm", None)
    try:
        matcher = AblationMatcher(encodings, model, **chosen)
        pair = matcher.pair(read_volume(case.fixed), read_volume(case.moving))
        found = pair.match(case.asked)
    except MeddiftError as error:
        return {"status": "failed", "reason": str(error), "seconds": time.perf_counter() - started}
    return {
        "status": "ok",
        "positions_ras_mm": [None if np.isnan(row).any() else row.tolist() for row in found.moving.positions],
        "seconds": time.perf_counter() - started,
    }
