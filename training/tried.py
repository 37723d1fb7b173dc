"""The table of what was tried: objectives, predictions, latents, timesteps, draws, whitening, weights of levels.

    python training/tried.py --scans FOLDER --runs training/runs --shipped src/meddift/models/weights/builtin \\
      --out training/runs/tried

Rows of `--runs` (those of `RUNS`; ae-joint needs autoencoder beside it) were trained equally long from scratch; the
others read the shipped weights in another way. All are compared on the same held-out pairs by the search of
`evaluate.py`. Rows that are there already are not computed again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from contestants import UP, encoder_levels, spec_of, write_random_weights
from evaluate import measure
from evaluation_pairs import list_pairs, make_task
from export import export_run, weights_metadata
from meddift.features import ExtractionOptions, Pyramid, extract_pyramid, whiten_pair
from meddift.io import read_volume
from meddift.models import find_spec, load_model, prepare_volume
from meddift.volume import Volume
from summary import STATISTICS, figure, put_between_markers, resampled_rows

#: Short runs that the table compares.
RUNS = ("joint", "denoising", "epsilon", "v", "half", "wide", "two-blocks", "three-stages", "1.5mm", "3mm", "ae-joint")
#: Scans from which statistics of whitening are kept: training data.
STATISTICS_FROM = ("LIDC-0001", "LIDC-0293", "STS_005")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: As it stands there.
        source: Label of weights.
        levels: Which levels are compared.
        weights: Weights of levels, where not 1.
        whiten: "" not at all, "pair" by the statistics of the pair, "kept" by those of training scans.
        timesteps: Levels of all of them are compared side by side.
        draws: Noise draws averaged; 0 adds none.
    """

    name: str
    source: str
    levels: tuple[str, ...] = UP
    weights: tuple[tuple[str, float], ...] = ()
    whiten: str = ""
    timesteps: tuple[int, ...] = (20,)
    draws: int = 0


def list_rows(level_weights: dict[str, float]) -> list[Row]:
    """All lines, in the order of the table."""
    three = UP[:3]
    rows = [
        Row("denoising + correspondence (x0, Haar)", "joint"),
        Row("denoising only, raw", "denoising"),
        Row("denoising only, whitened", "denoising", whiten="pair"),
        Row("epsilon + correspondence", "epsilon"),
        Row("v + correspondence", "v"),
        Row("16/32/64/96 channels", "half"),
        Row("48/80/128/144 channels", "wide"),
        Row("two residual blocks a stage", "two-blocks"),
        Row("three stages, 32/64/144 channels", "three-stages", three),
        Row("working at 1.5 mm", "1.5mm"),
        Row("working at 3 mm", "3mm"),
        Row("autoencoder of stride 4 + correspondence", "ae-joint", three),
        Row("the same with enc0, enc1", "ae-joint", (*three, "enc1", "enc0")),
        Row("enc0, enc1 alone, whitened", "ae-joint", ("enc1", "enc0"), whiten="pair"),
        Row("random weights, whitened", "random", whiten="pair"),
        Row("shipped: timestep 20, no noise, raw, equal weights", "shipped"),
        Row("timestep 0", "shipped", timesteps=(0,)),
        Row("timestep 60", "shipped", timesteps=(60,)),
        Row("timesteps 0 and 60 side by side", "shipped", timesteps=(0, 60)),
        Row("one noise draw", "shipped", draws=1),
        Row("three noise draws averaged", "shipped", draws=3),
        Row("whitened by the pair", "shipped", whiten="pair"),
        Row("whitened by kept statistics", "shipped", whiten="kept"),
    ]
    rows += [Row(f"{level} alone", "shipped", (level,)) for level in UP[1:]]
    if level_weights:
        words = ", ".join(f"{weight:g}" for weight in level_weights.values())
        rows.append(Row(f"levels weighted {words}", "shipped", weights=tuple(level_weights.items())))
    return rows


class Sources:
    """Models by label, and pyramids of the scans at hand."""

    def __init__(self, folders: dict[str, Path], scans: Path) -> None:
        self.folders, self.scans = folders, scans
        self._models: dict[str, Any] = {}
        self._digests: dict[str, str] = {}
        self._maps: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
        self._pyramids: dict[tuple[Any, ...], Pyramid] = {}

    def forget(self) -> None:
        """Let go of all pyramids."""
        self._pyramids.clear()

    def digest(self, label: str) -> str:
        """sha256 of a label's weights, whatever order their file's header has."""
        if label not in self._digests:
            state = hashlib.sha256()
            for path in sorted(self.folders[label].glob("*.safetensors")):
                for name, tensor in sorted(load_file(path).items()):
                    state.update(name.encode() + tensor.contiguous().numpy().tobytes())
            self._digests[label] = state.hexdigest()
        return self._digests[label]

    def model(self, label: str) -> Any:
        """The network of a label through the package's own loader."""
        if label not in self._models:
            folder = self.folders[label]
            # bfloat16 where the processor has it: half the time, and the same for all rows.
            self._models[label] = load_model(spec_of(folder), weights=folder, precision="auto")
        return self._models[label]

    def pyramid(self, row: Row, scan: Volume) -> Pyramid:
        """What a row reads from a scan, before whitening."""
        parts = [self._one(row, scan, timestep) for timestep in row.timesteps]
        levels = [
            replace(level, name=level.name if len(parts) == 1 else f"{level.name}-{timestep}")
            for part, timestep in zip(parts, row.timesteps, strict=True)
            for level in part.select(row.levels).levels
        ]
        levels.sort(key=lambda level: -float(np.prod(level.grid.spacing)))
        return replace(parts[0], levels=tuple(levels))

    def pair(self, row: Row, fixed: Volume, moving: Volume) -> tuple[Pyramid, Pyramid]:
        """The two pyramids that a row compares."""
        both = tuple(self.pyramid(row, scan) for scan in (fixed, moving))
        if row.whiten == "pair":
            both = whiten_pair(*both)
        elif row.whiten == "kept":
            both = tuple(self._whitened(row, pyramid) for pyramid in both)
        weights = dict(row.weights)
        return both[0].weighted(weights), both[1].weighted(weights)

    def _one(self, row: Row, scan: Volume, timestep: int) -> Pyramid:
        model = self.model(row.source)
        draws = row.draws
        key = (row.source, id(scan), timestep, draws)
        if key not in self._pyramids:
            options = ExtractionOptions(timestep=timestep, levels=model.spec.levels, noise_samples=draws)
            pyramid = extract_pyramid(scan, model, options)
            if (self.folders[row.source] / "autoencoder.json").exists():
                encoder = encoder_levels(self.folders[row.source], prepare_volume(scan, model.spec))
                pyramid = replace(pyramid, levels=(*pyramid.levels, *encoder))
            self._pyramids[key] = pyramid
        return self._pyramids[key]

    def _whitened(self, row: Row, pyramid: Pyramid) -> Pyramid:
        """By mean and covariance over the training scans of `STATISTICS_FROM`."""
        if row.source not in self._maps:
            sums: dict[str, list[np.ndarray]] = {}
            for word in STATISTICS_FROM:
                scan = read_volume(sorted(self.scans.glob(f"*{word}*.nii.gz"))[0])
                part = self.pyramid(replace(row, whiten=""), scan)
                for level in part.levels:
                    sums.setdefault(level.name, []).append(level.matrix[part.inside(level.name).reshape(-1)][::7])
                self._pyramids = {key: kept for key, kept in self._pyramids.items() if kept is not part}
            self._maps[row.source] = {name: _whitening(np.concatenate(rows)) for name, rows in sums.items()}
        maps = self._maps[row.source]
        levels = []
        for level in pyramid.levels:
            mean, matrix = maps[level.name]
            mapped = ((level.matrix - mean) @ matrix).reshape(level.features.shape)
            levels.append(replace(level, values=np.ascontiguousarray(mapped, dtype=np.float32)))
        return replace(pyramid, levels=tuple(levels))


def _whitening(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and inverse square root of the covariance, as in `meddift.features.whitening`."""
    values, vectors = np.linalg.eigh(np.cov(rows.astype(np.float64), rowvar=False))
    matrix = (vectors / np.sqrt(np.maximum(values, 1e-4 * values[-1]))) @ vectors.T
    return rows.mean(axis=0, dtype=np.float64).astype(np.float32), matrix.astype(np.float32)


def gather(runs: Path, shipped: Path, out: Path) -> dict[str, Path]:
    """Label -> folder of weights; runs are exported. Runs that are not there are left out."""
    folders = {"shipped": shipped}
    for label in RUNS:
        if (runs / label / "checkpoint.pt").exists():
            folders[label] = out / "weights" / label
            export_run(runs / label, folders[label])
            if label == "ae-joint":
                for name in ("autoencoder.json", "autoencoder.safetensors"):
                    shutil.copy(runs / "autoencoder" / name, folders[label] / name)
    folders["random"] = write_random_weights(find_spec("builtin"), out / "weights" / "random", seed=0)
    return folders


def table(parts: dict[str, list[dict[str, Any]]], sizes: dict[str, str]) -> str:
    """Markdown: a line a row, global search and search under the prior, vessels and body apart."""
    lines = [
        "| | vessels: median mm, global | ≤ 10 mm % | median mm, prior | ≤ 5 mm % | body: median mm, global "
        "| ≤ 10 mm % | median mm, prior | ≤ 5 mm % | training | M parameters |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, mine in parts.items():
        cells = []
        for kind in ("vessels", "body"):
            for setting, statistics in (("global", ("median", "within 10 mm")), ("prior", ("median", "within 5 mm"))):
                errors = [np.array(p["errors_mm"][setting])[[k == kind for k in p["kinds"]]] for p in mine]
                drawn = resampled_rows([len(e) for e in errors], seed=0)
                for statistic in statistics:
                    f = figure(STATISTICS[statistic], np.concatenate(errors), drawn)
                    digits = 1 if statistic == "median" else 0
                    cells.append(f"{f.value:.{digits}f} [{f.low:.{digits}f}, {f.high:.{digits}f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {sizes.get(name, '')} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="folder with the short runs")
    parser.add_argument("--shipped", type=Path, required=True, help="weights that are read in other ways")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--level-weights", default="{}", help='JSON, such as {"up0": 0.2, "up3": 2}')
    parser.add_argument("--only", default="", help="only rows whose source is this")
    parser.add_argument("--seeds", type=int, default=1, help="deformations of each validation scan")
    parser.add_argument("--points", type=int, default=20, help="of each kind in each pair")
    parser.add_argument("--card", type=Path, help="model card that the table is written into, between its markers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    (arguments.out / "parts").mkdir(parents=True, exist_ok=True)
    folders = gather(arguments.runs, arguments.shipped, arguments.out)
    sources = Sources(folders, arguments.scans)
    rows = [row for row in list_rows(json.loads(arguments.level_weights)) if row.source in folders]
    parts: dict[str, list[dict[str, Any]]] = {row.name: [] for row in rows}
    recipes = list(list_pairs(arguments.scans, seeds=arguments.seeds, phantoms=0))
    for recipe in recipes:
        made: list[Any] = []

        def task(recipe: Any = recipe, made: list[Any] = made) -> Any:
            if not made:
                pair = recipe.make()
                made.append(make_task(pair, count=arguments.points, seed=pair.seed))
            return made[0]

        sources.forget()
        for row in rows:
            part = _part(row, recipe, task, sources, arguments)
            if part is not None:
                parts[row.name].append(part)
    parts = {name: mine for name, mine in parts.items() if len(mine) == len(recipes)}
    sizes = {row.name: _length(folders[row.source]) for row in rows}
    words = table(parts, sizes)
    (arguments.out / "tried.md").write_text(words + "\n", encoding="utf-8")
    if arguments.card:
        put_between_markers(arguments.card, "tried", f"\n{words}\n")
    print(words)


def _part(row: Row, recipe: Any, task: Callable[[], Any], sources: Sources, arguments: argparse.Namespace) -> Any:
    """The result of a row on a pair, kept from an earlier run or computed now; None if it is not wanted now."""
    content = json.dumps([repr(replace(row, name="")), sources.digest(row.source), arguments.points])
    path = arguments.out / "parts" / f"{recipe.name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}.json"
    if path.exists():
        return json.loads(path.read_text())
    if arguments.only and row.source != arguments.only:
        return None
    began, what = time.process_time(), task()
    measured = measure(*sources.pair(row, what.pair.fixed, what.pair.moving), what)
    part = {"pair": recipe.name, "group": recipe.group, "kinds": list(what.kinds), **measured}
    path.write_text(json.dumps(part))
    middle = {key: round(float(np.median(values)), 2) for key, values in part["errors_mm"].items()}
    print(f"{recipe.name}: {row.name}: {time.process_time() - began:.1f} s of CPU, median {middle}", flush=True)
    return part


def _length(folder: Path) -> str:
    """How long weights were trained, and how many they are."""
    steps = weights_metadata(folder).get("steps", "0")
    count = sum(tensor.numel() for path in folder.glob("unet-*.safetensors") for tensor in load_file(path).values())
    return f"{'none' if steps == '0' else f'{steps} steps'} | {count / 1e6:.1f}"


if __name__ == "__main__":
    main()
