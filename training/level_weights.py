"""Weights of levels, by measurement on pairs made from training scans; held-out pairs are not looked at.

    python training/level_weights.py --scans FOLDER --weights src/meddift/models/weights/builtin

Prints combinations of weights from best to worst, by the mean of log(1 + error in mm) over points on vessels and
anywhere in the body: everywhere on the voxels of the finest level, and within 25 mm of an expected place at 2 mm.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import torch

from evaluate import PRIOR_RADIUS_MM
from evaluation_pairs import make_task
from meddift.features import ExtractionOptions, extract_pyramid, whiten_pair
from meddift.features.extraction import MIND
from meddift.geometry import window_distances, windows_around
from meddift.io import read_volume
from meddift.matching import SearchIndex, search_grid, similarity_maps, window_similarity
from meddift.models import find_spec, load_model
from meddift_lab.synthetic import scan_pair

#: Training scans and seeds of their deformation.
PAIRS = (("LIDC-0001", 11), ("LIDC-0295", 12), ("LIDC-0306", 13))
CHOICES = {"up0": (0.0, 0.5, 1.0), "up1": (0.0, 0.5, 1.0), "up2": (0.0, 0.5, 1.0), "up3": (1.0, 2.0), MIND: (0.5, 1.0)}
#: Everywhere: of the voxels farther than this from the truth, every so many stand for all.
NEAR_MM, EVERY = 12.0, 7


def similarities(pyramids: tuple, task: object, levels: tuple[str, ...]) -> tuple[dict, dict]:
    """By setting: the cosines of each level, and the distance of each candidate from the truth."""
    cosines: dict[str, list[torch.Tensor]] = {"global": [], "prior": []}
    away, everywhere = {}, []
    finest = [name for name in levels if name != MIND][-1]
    for name in levels:
        fixed, moving = (p.select([name]) for p in pyramids)
        whole = pyramids[1]
        near = SearchIndex(moving, search_grid(whole, kind="network"))
        queries = SearchIndex(fixed, search_grid(pyramids[0], kind=finest)).describe(task.points.positions)
        start, shape = windows_around(near.grid, task.expected, PRIOR_RADIUS_MM)
        cosines["prior"].append(window_similarity(near, queries, start, shape).flatten(1))
        far = SearchIndex(moving, search_grid(whole, kind=finest))
        everywhere.append(similarity_maps(far, queries).flatten(1).half())
        if name == finest:
            expected, true = (
                window_distances(near.grid, torch.from_numpy(near.grid.world_to_index(places) - start), shape).flatten(
                    1
                )
                for places in (task.expected, task.truth)
            )
            away["prior"] = true.masked_fill(expected > PRIOR_RADIUS_MM, torch.inf)
            centers = torch.from_numpy(far.grid.voxel_centers().reshape(-1, 3)).float()
            distance = torch.cdist(torch.from_numpy(task.truth).float(), centers)
    kept = (distance < NEAR_MM) | (torch.arange(distance.shape[1]) % EVERY == 0)
    count = int(kept.sum(1).min())
    # As many candidates for each point: those nearby, and as many of the others as all can have.
    rows = torch.where(kept, distance, torch.inf).argsort(dim=1)[:, :count]
    cosines["global"] = [part.gather(1, rows).float() for part in everywhere]
    away["global"] = distance.gather(1, rows)
    return cosines, away


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--points", type=int, default=30, help="of each kind in each pair")
    parser.add_argument("--mind", action="store_true", help="with the hand-made level, whitened")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = find_spec("builtin")
    model = load_model(spec, weights=arguments.weights, precision="auto")
    levels = (*spec.levels, MIND) if arguments.mind else spec.levels
    options = ExtractionOptions(timestep=spec.defaults.timestep, levels=levels, noise_samples=0)
    combinations = [*product(*(CHOICES[name] for name in levels)), *map(tuple, np.eye(len(levels)).tolist())]
    errors: dict[tuple[str, tuple[float, ...]], list[np.ndarray]] = {}
    for word, seed in PAIRS:
        pair = scan_pair(read_volume(sorted(arguments.scans.glob(f"*{word}_2mm*"))[0]), seed, n_points=1)
        task = make_task(pair, count=arguments.points, seed=seed)
        pyramids = tuple(extract_pyramid(v, model, options) for v in (pair.fixed, pair.moving))
        if arguments.mind:
            pyramids = whiten_pair(*pyramids, levels=[MIND])
        cosines, away = similarities(pyramids, task, levels)
        for setting, parts in cosines.items():
            reach = torch.isfinite(away[setting])
            for weights in combinations:
                total = sum(w * part for w, part in zip(weights, parts, strict=True) if w)
                place = torch.as_tensor(total).masked_fill(~reach, -torch.inf).argmax(1, keepdim=True)
                errors.setdefault((setting, weights), []).append(away[setting].gather(1, place)[:, 0].float().numpy())
        print(f"{word}: {len(task.truth)} points", flush=True)
    score = {key: float(np.log1p(np.concatenate(parts)).mean()) for key, parts in errors.items()}
    order = sorted(combinations, key=lambda w: score["global", w] + score["prior", w])
    print(f"{' '.join(levels)}: score global, prior; global median, within 10 mm; prior median, within 5 mm")
    for weights in [*order[:12], (1.0,) * len(levels), *map(tuple, np.eye(len(levels)).tolist())]:
        far, near = (np.concatenate(errors[setting, weights]) for setting in ("global", "prior"))
        print(
            f"{weights}: {score['global', weights]:.3f} {score['prior', weights]:.3f}; {np.median(far):.2f} "
            f"{100 * (far <= 10).mean():.0f} %; {np.median(near):.2f} {100 * (near <= 5).mean():.0f} %"
        )


if __name__ == "__main__":
    main()
