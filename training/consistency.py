"""Whether a place is described alike however much of the body a scan shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from contestants import AS_USED, RANDOM, Contestant, Describer
from evaluation_pairs import VALIDATION
from meddift.features import Level
from meddift.features.extraction import MIND
from meddift.geometry import sample
from meddift.io import read_volume
from meddift.matching import GlobalSearch, SearchIndex, search_grid, search_maps
from meddift.models import network_grid
from meddift.volume import Volume
from meddift_lab.synthetic import pick_points

CROP_MM = 200.0
#: Nearer to the border of the crop than this, features are not compared, mm.
MARGIN_MM = 32.0
CROPS = ("TotalSeg_aorta_cropped", "TotalSeg_pulm_cropped")


def crop_consistency(describer: Describer, label: str, scans: Path) -> list[dict[str, Any]]:
    """Relative L2 change of each level between a whole scan and a crop of it, away from the crop's border.

    `aligned`: the crop starts where the voxels of all levels fall onto those of the whole scan, so that nothing is
    interpolated. `shifted`: three voxels (6 mm) off along each axis; features of the whole scan are read between its
    voxels, so that this figure holds the error of that as well.
    """
    results = []
    for word in VALIDATION:
        whole = read_volume(sorted(scans.glob(f"*{word}*.nii.gz"))[0]).reoriented("RAS")
        whole = whole.resampled_along_axes(whole.grid.respaced(describer.spec.grid.spacing_mm))
        for name, shift in (("aligned", 0), ("shifted", 3)):
            crop = _crop(whole, describer, shift)
            describer.forget_all_but(whole, crop)
            full, part = describer.pyramid(label, whole), describer.pyramid(label, crop)
            change = {}
            for level in part.levels:
                centers = level.grid.voxel_centers().reshape(-1, 3)
                keep = _inside(crop, centers)
                here = level.matrix[keep].astype(np.float64)
                there = _read(full.level(level.name), centers[keep])
                change[level.name] = float(np.linalg.norm(here - there) / np.linalg.norm(there))
            results.append({"scan": word, "crop": name, "relative_change": change})
            print(f"crop of {word}, {name}: {change}", flush=True)
    return results


def _read(level: Level, positions: np.ndarray) -> np.ndarray:
    """(N, C) float64, descriptors at world points."""
    return sample(np.moveaxis(level.features, -1, 0), level.grid.world_to_index(positions)).T


def _crop(whole: Volume, describer: Describer, shift: int) -> Volume:
    """About the middle of the scan, on its grid."""
    spacing = whole.grid.spacing
    size = [min(round(CROP_MM / s), n) for s, n in zip(spacing, whole.grid.shape, strict=True)]
    multiple = describer.spec.grid.multiple
    # Both are padded to multiples; what starts as many voxels behind its padding, modulo a multiple, is aligned.
    pad_whole = np.rint(whole.grid.world_to_index(network_grid(whole.grid, describer.spec).origin)).astype(int)
    trial = whole.grid.cropped((0, 0, 0), size)
    pad_crop = np.rint(trial.world_to_index(network_grid(trial, describer.spec).origin)).astype(int)
    start = []
    for n, length, pad in zip(whole.grid.shape, size, pad_whole - pad_crop, strict=True):
        possible = np.arange(n - length + 1)
        fitting = possible[(possible - pad) % multiple == shift % multiple]
        fitting = fitting if len(fitting) else possible
        start.append(int(fitting[np.abs(fitting - (n - length) / 2).argmin()]))
    return whole.cropped(start, size)


def _inside(crop: Volume, centers: np.ndarray) -> np.ndarray:
    """Which places are away from the border of the crop."""
    return crop.grid.contains(centers, margin_mm=MARGIN_MM)


def overlapping_crops(describer: Describer, label: str, scans: Path) -> list[dict[str, Any]]:
    """Errors between two crops of one scan, in which the same world point is the same anatomy."""
    volumes = [read_volume(sorted(scans.glob(f"*{name}*.nii.gz"))[0]) for name in CROPS]
    describer.forget_all_but(*volumes)
    results = []
    own = describer.spec.defaults.levels
    trained = own if describer.spec.defaults.whiten else ()
    contestants = [
        Contestant(f"{label}{AS_USED}", label, (*own, MIND), (*trained, MIND)),
        Contestant(f"{label}, learned levels alone", label, own, trained),
        Contestant("MIND-SSC, whitened", RANDOM, (MIND,), (MIND,)),
        Contestant(f"{label}: default preset", label, (*own, MIND), end_to_end=True),
    ]
    for fixed, moving, names in ((*volumes, CROPS), (*volumes[::-1], CROPS[::-1])):
        points = pick_points(fixed, 300, kind="body", seed=0).positions
        points = points[moving.grid.contains(points, margin_mm=5) & fixed.grid.contains(points, margin_mm=5)][:80]
        for contestant in contestants:
            if contestant.end_to_end:
                matches = describer.matcher(contestant, seed=0).pair(fixed, moving).match(points)
                found, sure = matches.moving.positions, matches.ok
            else:
                pyramids = describer.pair(contestant, fixed, moving)
                start, goal = (SearchIndex(p, search_grid(p, kind="network")) for p in pyramids)
                search = search_maps if MIND in contestant.levels else _sparse
                voxels = search(goal, start.describe(points), rivals=False).voxels
                found, sure = goal.grid.index_to_world(voxels), None
            errors = np.linalg.norm(found - points, axis=1)
            answered = errors[~np.isnan(errors)]
            results.append({
                "fixed": names[0], "moving": names[1], "contestant": contestant.name, "n": len(points),
                "answered": len(answered), "median_mm": float(np.median(answered)), "mean_mm": float(answered.mean()),
                "p95_mm": float(np.percentile(answered, 95)), "within_5mm_percent": 100 * float((errors <= 5).mean()),
                "ok_percent": None if sure is None else 100 * float(sure.mean()),
            })  # fmt: skip
            print(results[-1], flush=True)
    return results


def _sparse(index: SearchIndex, queries: list, *, rivals: bool) -> Any:
    return GlobalSearch(index)(queries, rivals=rivals)


def describe(extra: dict[str, Any]) -> str:
    """Both measurements as Markdown; empty without them."""
    lines: list[str] = []
    if rows := extra.get("crop_consistency"):
        names = list(rows[0]["relative_change"])
        lines += [
            f"**Change of features between a whole scan and a {CROP_MM:.0f} mm crop of it**, relative L2 in percent, "
            f"{MARGIN_MM:.0f} mm and more from the crop's border. Aligned: the voxels of all levels coincide; "
            "shifted: 6 mm off, features of the whole scan are interpolated",
            "",
            f"| scan | crop | {' | '.join(names)} |",
            "|---|---|" + "---|" * len(names),
        ]
        for row in rows:
            shown = " | ".join(f"{100 * row['relative_change'][name]:.1f}" for name in names)
            lines.append(f"| {row['scan']} | {row['crop']} | {shown} |")
        lines.append("")
    if rows := extra.get("overlapping_crops"):
        lines += [
            "**Two overlapping crops of one scan** (heart CTA), points anywhere in the overlap; whole voxels of the "
            "2 mm grid without any prior, but for the `default` preset",
            "",
            "| fixed | | n | median mm | mean mm | p95 mm | ≤ 5 mm % | no answer | verdict ok % |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            ok = "" if row["ok_percent"] is None else f"{row['ok_percent']:.0f}"
            lines.append(
                f"| {row['fixed']} | {row['contestant']} | {row['n']} | {row['median_mm']:.2f} | {row['mean_mm']:.2f} "
                f"| {row['p95_mm']:.1f} | {row['within_5mm_percent']:.0f} | {row['n'] - row['answered']} | {ok} |"
            )
        lines.append("")
    return "\n".join(lines)
