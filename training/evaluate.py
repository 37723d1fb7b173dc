"""Compare descriptors on pairs of scans with exact truth: the same search, the same points, the same grid.

    python training/evaluate.py --weights trained=src/meddift/models/weights/builtin --scans FOLDER --out RESULTS

Pairs: validation scans that no training has seen, deformed by known breathing-like fields and scanned again
(other noise, kernel, slice thickness, field of view and table, table shift of 35 mm), and drawn chests likewise;
with --pairs real ones, whose points are known from elsewhere.
Results of each pair and contestant are kept under `--out`; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import time
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import consistency
import meddift
import meddift_lab
from contestants import CLOSEST, RANDOM, Contestant, Describer, list_contestants, write_random_weights
from evaluation_pairs import FIRST_PHANTOM, PRIOR_ERROR_MM, Task, list_pairs, make_task
from export import export_run, weights_metadata
from meddift.features import Pyramid
from meddift.geometry import Grid, window_distances, windows_around
from meddift.matching import GlobalSearch, SearchIndex, search_grid, search_maps, window_similarity
from meddift.models import find_spec, network_grid
from summary import RESAMPLES, as_csv, decisive, folded, markdown, put_between_markers, summarise

PRIOR_RADIUS_MM = 25.0
#: Raised whenever the same options give other results than before, so that kept ones are not mistaken for new.
EVALUATION_VERSION = 3

#: What has to be known about pairs made by computer, and about real ones.
MADE_PAIRS = (
    "The pairs are deformations of few scans, so that the "
    "intervals say nothing about how patients differ. Both scans of a pair have noise of their own and the "
    "lungs change density with their volume; still the anatomy of a deformed copy is its original's, which is "
    "kinder to local descriptors (patches, MIND) than two real scans of one patient are. "
    "Harder scans: breathing of 40 mm, more local bending, 8 degrees, slices of 5 mm, noise of 45 HU."
)
FEW_PAIRS = "The pairs are few, so that the intervals say nothing about how patients differ."


def compare(describer: Describer, contestant: Contestant, task: Task) -> dict[str, Any]:
    """Search for the points of a task with one contestant; errors in mm."""
    if contestant.source == CLOSEST:
        lattice = network_grid(task.pair.moving.grid, describer.spec)
        closest = _errors(lattice.index_to_world(np.rint(lattice.world_to_index(task.truth))), task)
        return {"errors_mm": {"global": closest, "prior": closest}}
    return measure(*describer.pair(contestant, task.pair.fixed, task.pair.moving), task)


def measure(fixed: Pyramid, moving: Pyramid, task: Task) -> dict[str, Any]:
    """Search for the points of a task in the moving pyramid, everywhere and nearby; errors in mm."""
    points = task.points.positions
    indexes = [SearchIndex(pyramid, _common_lattice(pyramid)) for pyramid in (fixed, moving)]
    start, goal = indexes
    queries = start.describe(points)
    fine = goal.grid.size <= 2 * max(level.features[..., 0].numel() for level in goal.levels)
    # Both visit, or rule out, every voxel: the same answers.
    found = search_maps(goal, queries, rivals=False) if fine else GlobalSearch(goal)(queries, rivals=False)
    nearby = search_ball(goal, queries, task.expected)
    return {"errors_mm": {
        "global": _errors(goal.grid.index_to_world(found.voxels), task),
        "prior": _errors(nearby, task),
    }}  # fmt: skip


def _common_lattice(pyramid: Pyramid) -> Grid:
    """The voxels of 2 mm on which all answer, whatever grid their network works on."""
    common = network_grid(pyramid.image_grid, find_spec("builtin"))
    return search_grid(replace(pyramid, network_grid=common), kind="network")


def search_ball(goal: SearchIndex, queries: list[torch.Tensor], expected: np.ndarray) -> np.ndarray:
    """(N, 3) world positions of the most similar voxels within `PRIOR_RADIUS_MM` of the expected places."""
    start, shape = windows_around(goal.grid, expected, PRIOR_RADIUS_MM)
    voxels = np.empty((len(expected), 3), dtype=np.int64)
    places = torch.from_numpy(goal.grid.world_to_index(expected) - start)
    for first in range(0, len(expected), 32):
        rows = slice(first, first + 32)
        values = window_similarity(goal, [q[rows] for q in queries], start[rows], shape)
        away = window_distances(goal.grid, places[rows], shape)
        place = values.masked_fill(away > PRIOR_RADIUS_MM, -torch.inf).flatten(1).argmax(dim=1)
        voxels[rows] = start[rows] + torch.stack(torch.unravel_index(place, shape), dim=1).numpy()
    return goal.grid.index_to_world(voxels)


def match_end_to_end(describer: Describer, contestant: Contestant, task: Task, *, seed: int) -> dict[str, Any]:
    """The `default` preset on a task; points without a counterpart are asked for as well."""
    pair = describer.matcher(contestant, seed=seed).pair(task.pair.fixed, task.pair.moving)
    matches = pair.match(task.points)
    absent = pair.match(task.absent) if len(task.absent) else None
    return {
        "errors_mm": {"default": _errors(matches.moving.positions, task)},
        "verdicts": list(matches.verdict),
        "absent": {"n": len(task.absent), "called_ok": 0 if absent is None else int(absent.ok.sum())},
    }


def _errors(found: np.ndarray, task: Task) -> list[float | None]:
    distance = np.linalg.norm(found - task.truth, axis=1)
    return [None if np.isnan(d) else round(float(d), 4) for d in distance]


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _locate(given: list[str], out: Path) -> dict[str, Path]:
    """Label -> folder of weights; runs of the trainer are exported first."""
    folders = {}
    for text in given:
        label, _, path = text.rpartition("=")
        folder = Path(path)
        label = label or folder.name
        if (folder / "checkpoint.pt").exists():
            print(f"{label}: {export_run(folder, out / 'weights' / label)}", flush=True)
            folder = out / "weights" / label
        folders[label] = folder
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", action="append", required=True, metavar="LABEL=FOLDER",
                        help="exported weights, or a run with a checkpoint; repeat for several")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--scans", type=Path, help="folder with the validation scans; without it phantoms only")
    parser.add_argument("--spec", default="builtin", help="name or file of the model's specification")
    parser.add_argument("--seeds", type=int, default=2, help="deformations of each validation scan")
    parser.add_argument("--harder", type=int, default=0, help="harder deformations of each validation scan besides")
    parser.add_argument("--phantoms", type=int, default=2, help="drawn pairs")
    parser.add_argument("--pairs", type=Path, help="pairs.csv of real pairs, as `meddift evaluate` reads it")
    parser.add_argument("--points", type=int, default=30, help="of each kind in each pair")
    parser.add_argument("--seed", type=int, default=0, help="of points, expected places, random weights, resampling")
    parser.add_argument("--quick", action="store_true", help="one pair of each kind, 20 points, fewer contestants")
    parser.add_argument(
        "--search-only", action="store_true", help="leave the `default` preset out, which takes longest"
    )
    parser.add_argument("--card", type=Path, help="model card that the tables are written into, between its markers")
    parser.add_argument("--block", default="evaluation", help="of the card: between which markers")
    parser.add_argument("--crop-consistency", action="store_true", help="how much features change with the crop")
    parser.add_argument("--totalseg", action="store_true", help="match two crops of one scan to each other")
    parser.add_argument("--autoencoder", type=Path, help="folder of autoencoder.py: its features are compared as well")
    parser.add_argument("--precision", choices=["float32", "bfloat16", "auto"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.phantoms, arguments.points = 1, 1, 20
    if (arguments.crop_consistency or arguments.totalseg) and arguments.scans is None:
        parser.error("--crop-consistency and --totalseg need --scans")
    torch.set_num_threads(arguments.threads)
    (arguments.out / "parts").mkdir(parents=True, exist_ok=True)

    spec = find_spec(arguments.spec)
    folders = _locate(arguments.weights, arguments.out)
    labels = list(folders)
    folders[RANDOM] = write_random_weights(spec, arguments.out / "weights" / "random", seed=arguments.seed)
    describer = Describer(spec, folders, autoencoder=arguments.autoencoder, precision=arguments.precision)
    contestants = list_contestants(labels, spec, quick=arguments.quick, autoencoder=arguments.autoencoder is not None)
    contestants = [c for c in contestants if not (arguments.search_only and c.end_to_end)]
    began = time.monotonic()
    parts: list[dict[str, Any]] = []
    for recipe in list_pairs(
        arguments.scans, seeds=arguments.seeds, phantoms=arguments.phantoms, harder=arguments.harder,
        real=arguments.pairs,
    ):  # fmt: skip
        keys = {c: _key(c, recipe.name, describer, arguments) for c in contestants}
        kept = {c: _kept(arguments.out, keys[c]) for c in contestants}
        task: Task | None = None
        for contestant in contestants:
            part = kept[contestant]
            if part is None:
                started = time.process_time()
                if task is None:
                    pair = recipe.make()
                    task = make_task(pair, count=arguments.points, seed=arguments.seed + pair.seed)
                    describer.forget_all_but(pair.fixed, pair.moving)
                if contestant.end_to_end:
                    measured = match_end_to_end(describer, contestant, task, seed=arguments.seed)
                else:
                    measured = compare(describer, contestant, task)
                part = {
                    "pair": recipe.name, "group": recipe.group, "contestant": contestant.name,
                    "kinds": list(task.kinds), **measured,
                }  # fmt: skip
                _write(arguments.out / "parts" / f"{keys[contestant]}.json", json.dumps(part))
                seconds = time.process_time() - started
                middle = {k: round(float(np.median([np.inf if e is None else e for e in v])), 2)
                          for k, v in part["errors_mm"].items()}  # fmt: skip
                print(f"{recipe.name}: {contestant.name}: {seconds:.1f} s of CPU, median {middle}", flush=True)
            parts.append(part)
    order = {contestant.name: place for place, contestant in enumerate(contestants)}
    parts.sort(key=lambda part: order[part["contestant"]])
    rows = summarise(parts, seed=arguments.seed)
    extra: dict[str, Any] = {}
    if arguments.crop_consistency:
        extra["crop_consistency"] = consistency.crop_consistency(describer, labels[0], arguments.scans)
    if arguments.totalseg:
        extra["overlapping_crops"] = consistency.overlapping_crops(describer, labels[0], arguments.scans)
    record = {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("meddift", "torch", "monai", "numpy", "scipy")},
        "threads": arguments.threads,
        "precision": arguments.precision,
        "seconds": round(time.monotonic() - began, 1),
        "spec": {"name": spec.name, "digest": spec.digest()},
        "weights": {
            label: {"sha256": describer.hashes[label], **weights_metadata(folders[label])} for label in folders
        },
        "seed": arguments.seed,
        "seeds_of_pairs": {
            "scans": arguments.seeds,
            "harder": arguments.harder,
            "first_phantom": FIRST_PHANTOM,
            "phantoms": arguments.phantoms,
        },
        "points_of_each_kind": arguments.points,
        "prior": {"displaced_by_at_most_mm": PRIOR_ERROR_MM, "radius_mm": PRIOR_RADIUS_MM},
        "bootstrap": {"resamples": RESAMPLES, "interval_percent": 95},
    }
    words = _introduction(record, labels, made=arguments.scans is not None or arguments.phantoms > 0)
    closing = consistency.describe(extra)
    _write(arguments.out / "evaluation.json", json.dumps({**record, "rows": rows, **extra}, indent=1))
    _write(arguments.out / "evaluation.csv", as_csv(rows))
    _write(arguments.out / "evaluation.md", "\n".join([words, markdown(rows), closing]))
    if arguments.card:
        block = "\n".join([words, decisive(rows), folded(rows), closing]).strip()
        put_between_markers(arguments.card, arguments.block, f"\n{block}\n")
    print(f"wrote {arguments.out / 'evaluation.md'}, .csv and .json after {record['seconds']:.0f} s")


def _key(contestant: Contestant, pair: str, describer: Describer, arguments: argparse.Namespace) -> str:
    """Name of the file in which a result is kept: pair, and a digest of all that decides it."""
    content = {
        "version": EVALUATION_VERSION,
        "code": _code_digest(end_to_end=contestant.end_to_end),
        "contestant": repr(contestant),
        "weights": describer.hashes.get(contestant.source, ""),
        "spec": describer.specs[contestant.source if contestant.source in describer.specs else RANDOM].digest(),
        "defaults": repr(describer.spec.defaults),
        "points": arguments.points,
        "seed": arguments.seed,
        "precision": arguments.precision,
    }
    return f"{pair}-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]}"


@cache
def _code_digest(*, end_to_end: bool) -> str:
    """sha256 of the code that decides results: after a change nothing is taken from an earlier run."""
    package, laboratory = (Path(module.__file__).parent for module in (meddift, meddift_lab))
    rooms = [package / name for name in ("geometry", "features", "matching", "models")]
    rooms += [laboratory / "synthetic"] + [package / "pipeline"] * end_to_end
    files = [*sorted(path for room in rooms for path in room.rglob("*.py")), package / "volume.py"]
    files += [Path(__file__).with_name(f"{name}.py") for name in ("contestants", "evaluation_pairs")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _kept(out: Path, key: str) -> dict[str, Any] | None:
    path = out / "parts" / f"{key}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _introduction(record: dict[str, Any], labels: list[str], *, made: bool) -> str:
    """What the tables show; `made`: whether there are pairs made by computer among them."""
    weights = [
        f"{label}: sha256 `{record['weights'][label]['sha256'][:16]}`, {record['weights'][label].get('steps', '?')} "
        "steps of training"
        for label in labels
    ]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return "\n".join(
        [
            f"Weights: {'; '.join(weights)}. {versions}; {record['threads']} thread(s), {record['precision']}.",
            "",
            f"Errors are distances to {'the exact truth' if made else 'the places that come with the pairs'}. In "
            f"brackets: 95 % intervals from {RESAMPLES} bootstrap resamples of pairs, and of points within each. "
            f"{MADE_PAIRS if made else FEW_PAIRS} "
            "MIND is MIND-SSC, whitened. Random weights are those "
            "that training starts from (the last convolution of every residual block is zero there). "
            "The closest voxel is the one nearest to the truth: no answer on whole voxels can be better. "
            "A point without an answer counts as not found. The last columns compare with the first row on the same "
            "points: by how much the median is larger, and how many percentage points fewer are found within 5 mm.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
