"""Draw the two pictures of the notebook of the built-in model: how similar every place of a scan is to one point.

    python training/similarity_pictures.py --scans FOLDER --out docs

One point on a vessel and one in soft tissue of LIDC-0314, a scan that no training has seen, looked for in a deformed
and rescanned copy of it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from evaluation_pairs import VALIDATION
from export import export_run
from meddift.io import read_volume
from meddift.pipeline import Matcher
from meddift.volume import Volume
from meddift_lab.synthetic import SyntheticPair, pick_points, scan_pair

BACKGROUND, TEXT, FAINT = "#0d1013", "#e8e6e0", "#9aa0a8"
POINT, TRUTH, ANSWER = "#ffb000", "#36d1ff", "#ffffff"
#: Transparent where nothing is alike, so that the scan shows through.
HEAT = LinearSegmentedColormap.from_list(
    "heat", [(0, (0.5, 0, 0.5, 0)), (0.35, (0.7, 0.05, 0.45, 0.35)), (0.7, (1, 0.45, 0.1, 0.8)), (1, (1, 1, 0.6, 1))]
)
#: Keeps letters readable on bright anatomy.
OUTLINE = [withStroke(linewidth=2.5, foreground="#000000")]
STEP_MM = 1.0
BAR_MM = 50.0


@dataclass(frozen=True)
class Plane:
    """A slice as radiologists look at it: world axes across and up, and whether the first grows to the left."""

    name: str
    across: int
    up: int
    letters: str


PLANES = (Plane("axial", 0, 1, "RLPA"), Plane("coronal", 0, 2, "RLIS"))


def slice_of(volume: Volume, plane: Plane, through: NDArray[np.float64], *, outside: float) -> tuple[Any, list[float]]:
    """The slice of a volume through a world point, and its extent in world mm (left, right, bottom, top).

    The patient's right is at the left: world R grows from right to left, so that columns run from high to low.
    """
    corners = volume.grid.corners
    low, high = corners.min(axis=0), corners.max(axis=0)
    across = np.arange(high[plane.across], low[plane.across], -STEP_MM)
    up = np.arange(low[plane.up], high[plane.up], STEP_MM)
    world = np.empty((len(up), len(across), 3))
    world[:] = through
    world[..., plane.across], world[..., plane.up] = across, up[:, None]
    flat = world.reshape(-1, 3)
    values = np.where(volume.grid.contains(flat), volume.at(flat), outside).reshape(len(up), len(across))
    return values, [float(across[0]), float(across[-1]), float(up[0]), float(up[-1])]


def choose_points(pair: SyntheticPair) -> dict[str, NDArray[np.float64]]:
    """The most distinctive vessel, and a random place in even soft tissue, far from the borders of both scans."""

    def seen(positions: NDArray[np.float64]) -> NDArray[np.bool_]:
        inside = pair.fixed.grid.contains(positions, margin_mm=30)
        return inside & pair.moving.grid.contains(pair.transform.apply(positions), margin_mm=30)

    vessels = pick_points(pair.fixed, 40, kind="vessels").positions
    body = pick_points(pair.fixed, 2000, kind="body", seed=4, margin_mm=15).positions
    around = np.stack(np.meshgrid(*[[-8.0, 0.0, 8.0]] * 3), -1).reshape(-1, 3)
    values = pair.fixed.at((body[:, None] + around).reshape(-1, 3)).reshape(len(body), -1)
    soft = ((values > -20) & (values < 140)).all(axis=1)
    return {"vessel": vessels[seen(vessels)][0], "soft-tissue": body[soft & seen(body)][0]}


def draw(path: Path, pair: SyntheticPair, point: NDArray[np.float64], answer: NDArray[np.float64], heat: Volume,
         title: str) -> None:  # fmt: skip
    """Two planes, each with the fixed slice, the moving slice and the similarity on it."""
    truth = pair.transform.apply(point)
    top = float(heat.data.max())
    norm = Normalize(max(0.0, float(np.percentile(heat.data, 60))), top)
    figure = Figure(figsize=(12.6, 8.2), dpi=110, facecolor=BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    sides = [(pair.fixed, point, "fixed"), (pair.moving, truth, "moving"), (pair.moving, truth, "similarity")]
    heights = []
    for plane in PLANES:
        heights.append(max(np.ptp(v.grid.corners[:, plane.up]) for v in (pair.fixed, pair.moving)))
    axes = figure.subplots(2, 3, gridspec_kw={"height_ratios": heights, "hspace": 0.03, "wspace": 0.03})
    figure.subplots_adjust(left=0.035, right=0.925, top=0.895, bottom=0.06)
    window = (-1000, 400) if "vessel" in path.stem else (-200, 300)
    for row, plane in enumerate(PLANES):
        for column, (volume, middle, name) in enumerate(sides):
            ax = axes[row][column]
            values, extent = slice_of(volume, plane, middle, outside=-1000)
            ax.imshow(values, cmap="gray", vmin=window[0], vmax=window[1], extent=extent, origin="lower",
                      interpolation="bilinear")  # fmt: skip
            if name == "similarity":
                warm, _ = slice_of(heat, plane, middle, outside=norm.vmin)
                ax.imshow(warm, cmap=HEAT, norm=norm, extent=extent, origin="lower", interpolation="bilinear")
            ax.set_facecolor(BACKGROUND)
            ax.set_xticks([])
            ax.set_yticks([])
            for spine in ax.spines.values():
                spine.set_visible(False)
            places = [(point, POINT, 1.6)] if name == "fixed" else [(truth, TRUTH, 2.4), (answer, ANSWER, 1.0)]
            for position, color, width in places:
                cross(ax, position[plane.across], position[plane.up], color, width)
            left, right, bottom, upper = extent
            ax.set_anchor("N")
            for letter, x, y in zip(plane.letters, (0.025, 0.975, 0.5, 0.5), (0.5, 0.5, 0.035, 0.965), strict=True):
                ax.text(x, y, letter, transform=ax.transAxes, color=TEXT, size=9, ha="center", va="center",
                        path_effects=OUTLINE)  # fmt: skip
            if row == 0:
                box = ax.get_position(original=True)
                figure.text((box.x0 + box.x1) / 2, 0.915, name, color=TEXT, size=13, weight="bold", ha="center")
            if column == 0:
                ax.set_ylabel(plane.name, color=FAINT, size=11)
                start = left - 0.06 * (left - right)
                y = bottom + 0.06 * (upper - bottom)
                ax.plot([start, start - BAR_MM], [y, y], color=TEXT, lw=2, path_effects=OUTLINE)
                ax.text(start - BAR_MM / 2, y + 0.015 * (upper - bottom), f"{BAR_MM:.0f} mm", color=TEXT, size=8,
                        ha="center", va="bottom", path_effects=OUTLINE)  # fmt: skip
    bar = figure.colorbar(ScalarMappable(norm, HEAT), cax=figure.add_axes((0.938, 0.2, 0.013, 0.55)))
    bar.ax.tick_params(colors=TEXT, labelsize=9)
    bar.outline.set_visible(False)
    bar.ax.set_facecolor("#4a4d52")
    bar.set_label("mean cosine over levels", color=TEXT, size=9)
    error = float(np.linalg.norm(answer - truth))
    shift = float(np.linalg.norm(truth - point))
    figure.text(0.035, 0.965, title, color=TEXT, size=14, weight="bold", va="center")
    found = f"answer {error:.1f} mm from the truth" if np.isfinite(error) else "no answer"
    figure.text(0.925, 0.965, f"{found}, which lies {shift:.0f} mm away from the point in world coordinates",
                color=FAINT, size=10, ha="right", va="center")  # fmt: skip
    for x, color, text in ((0.035, POINT, "point"), (0.12, TRUTH, "truth"), (0.2, ANSWER, "answer, default preset")):
        figure.text(x, 0.03, "+", color=color, size=18, weight="bold", va="center")
        figure.text(x + 0.018, 0.03, text, color=TEXT, size=10, va="center")
    figure.text(0.925, 0.03, "slices of the moving scan pass through the truth; no prior was used for the similarity",
                color=FAINT, size=9, ha="right", va="center")  # fmt: skip
    canvas.print_png(str(path))


def cross(ax: Any, x: float, y: float, color: str, width: float) -> None:
    """A cross-hair with a gap, so that what it points at can be seen."""
    gap, arm = 5.0, 17.0
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        ax.plot([x + gap * dx, x + arm * dx], [y + gap * dy, y + arm * dy], color=color, lw=width,
                solid_capstyle="butt")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, required=True, help="folder with the validation scans")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--weights", type=Path, help="exported weights or a run; those of the package if left out")
    parser.add_argument("--seed", type=int, default=1, help="of the deformation")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    weights = arguments.weights
    if weights is not None and (weights / "checkpoint.pt").exists():
        export_run(weights, arguments.out / "weights")
        weights = arguments.out / "weights"
    scan = read_volume(sorted(arguments.scans.glob(f"*{VALIDATION[0]}*.nii.gz"))[0])
    pair = scan_pair(scan, arguments.seed, n_points=1)
    matching = Matcher(weights=weights, store=False, device="cpu").pair(pair.fixed, pair.moving)
    chosen = choose_points(pair)
    matches = matching.match(np.stack(list(chosen.values())))
    for row, (name, point) in enumerate(chosen.items()):
        path = arguments.out / f"builtin-similarity-{name}.png"
        words = "a vessel" if name == "vessel" else "soft tissue"
        title = f"Similarity to one point in {words}" if name != "vessel" else f"Similarity to one point on {words}"
        draw(path, pair, point, matches.moving.positions[row], matching.similarity(point), title)
        print(f"wrote {path}: verdict {matches.verdict[row]}")


if __name__ == "__main__":
    main()
