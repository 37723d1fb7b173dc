"""Very many points: seconds, and where they are put by nodes against where they are put singly.

python -m benchmarks.many_points                          a drawn chest with exact truth
python -m benchmarks.many_points FIXED MOVING POINTS MOVING_POINTS   two scans with landmarks
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from numpy.typing import NDArray

from meddift import Matcher, read_points
from meddift.pipeline import pair as pairs
from meddift.pipeline.many_points import Nodes
from meddift.points import Points
from meddift_lab.synthetic import phantom_pair


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="fixed and moving scan, fixed and moving landmarks")
    parser.add_argument("--count", type=int, default=100_000, help="how many points")
    parser.add_argument("--singly", type=int, default=2_000, help="how many of them are aligned singly as well")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    matcher = Matcher(threads=chosen.threads)
    if chosen.files:
        fixed, moving, *files = chosen.files
        landmarks, there = (read_points(file).positions for file in files)
    else:
        made = phantom_pair(1, crop_mm=0.0, thickness_mm=2.0)
        fixed, moving = made.fixed, made.moving
        landmarks, there = made.points.positions, made.truth.positions
    pair = matcher.pair(fixed, moving)
    pair.prepare()
    body, generator = pair.fixed.body, np.random.default_rng(0)
    voxels = np.argwhere(body.data)
    chosen_voxels = voxels[generator.choice(len(voxels), chosen.count - len(landmarks))]
    places = body.grid.index_to_world(chosen_voxels + generator.uniform(-0.5, 0.5, chosen_voxels.shape))
    points = np.concatenate([landmarks, places])
    truth = None if chosen.files else made.transform.apply(points)
    started, used = time.perf_counter(), time.process_time()
    many = pair.match(points)
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    nodes = Nodes.around(points, pair.field.group_of(points))
    spacing = float(np.diff(np.unique(nodes.positions[:, 0])).min())
    taken = f"{seconds:.1f} s ({processor:.1f} processor seconds)"
    print(f"{len(points)} points in {taken}, {len(nodes.positions)} nodes {spacing:g} mm apart")
    pairs.MANY = len(points)
    some = slice(0, chosen.singly)
    single = pair.match(Points(points[some]))
    apart = np.linalg.norm(single.moving.positions - many.moving.positions[some], axis=1)
    print(f"by nodes and singly {np.nanmean(apart):.3f} mm apart, 95 % within {np.nanquantile(apart, 0.95):.3f} mm")
    for name, rows, true in (("landmarks", slice(0, len(landmarks)), there), ("all", some, truth)):
        if true is not None:
            told("singly", single.moving.positions[rows], single.ok[rows], true[rows], name)
            told("nodes", many.moving.positions[rows], many.ok[rows], true[rows], name)
    print(f"ok: singly {single.ok.mean():.3f}, by nodes {many.ok[some].mean():.3f}", file=sys.stdout)


def told(way: str, found: NDArray[np.float64], ok: NDArray[np.bool_], truth: NDArray[np.float64], name: str) -> None:
    """Print errors of one way."""
    error = np.linalg.norm(found - truth, axis=1)
    beyond = np.nanmean(error[ok] > 5) if ok.any() else float("nan")
    print(
        f"{name}, {way}: mean {np.nanmean(error):.3f} mm, median {np.nanmedian(error):.3f} mm; "
        f"of {ok.sum()} that are ok mean {np.nanmean(error[ok]):.3f} mm, {100 * beyond:.2f} % beyond 5 mm"
    )


if __name__ == "__main__":
    main()
