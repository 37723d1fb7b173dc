"""What a cohort of a million pairs comes to, with the real order of work and stage times that were measured.

    python -m benchmarks.cohort_scale --pairs 1000000 --shards 100 --workers 1 --encode 20 --pair 25 --store-mb 600

Scheduler, order and shards are those of `meddift cohort`; only encoding and matching are replaced by their times.
"""

from __future__ import annotations

import argparse
import heapq
import json
import time

from meddift.cohort.cases import Case, Labels
from meddift.cohort.inputs import case_key
from meddift.cohort.order import by_shared_scans, part
from meddift.cohort.schedule import Schedule


def cohort(pairs: int, scans_each: int) -> list[Case]:
    """Patients with some scans each; the first is the fixed one of a pair with every later one."""
    cases = []
    for number in range(pairs):
        patient, later = divmod(number, scans_each - 1)
        files = {"fixed": f"/data/{patient}/0.nii.gz", "moving": f"/data/{patient}/{later + 1}.nii.gz"}
        cases.append(Case(f"p{patient}-{later + 1}", ("register",), Labels(f"p{patient}"), files))
    return cases


def simulate(cases: list[Case], workers: int, encode_s: float, pair_s: float) -> dict[str, float]:
    """One shard: seconds, share of the time that workers work, and the most scans whose features are kept."""
    schedule = Schedule(cases)
    flying: list[tuple[float, int, Case | str]] = []
    now = busy = 0.0
    kept: set[str] = set()
    most = encoded = number = 0
    while True:
        while len(flying) < workers and (work := schedule.next()) is not None:
            number += 1
            taken = encode_s if isinstance(work, str) else pair_s
            busy += taken
            heapq.heappush(flying, (now + taken, number, work))
        if not flying:
            break
        now, _, work = heapq.heappop(flying)
        if isinstance(work, str):
            encoded += 1
            kept.add(work)
            schedule.encoded(work)
        else:
            kept -= set(schedule.finished(work))
        most = max(most, len(kept))
    return {"seconds": now, "busy": busy / (now * workers) if now else 1.0, "kept": most, "encoded": encoded}


def main() -> None:
    """Print what a cohort comes to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--scans-each", type=int, default=3, help="scans of a patient")
    parser.add_argument("--shards", type=int, default=100, help="machines")
    parser.add_argument("--workers", type=int, default=1, help="of each machine")
    parser.add_argument("--encode", type=float, required=True, help="seconds for a scan")
    parser.add_argument("--pair", type=float, required=True, help="seconds for a pair")
    parser.add_argument("--store-mb", type=float, required=True, help="features of a scan, MB")
    parser.add_argument("--line-bytes", type=int, default=1500, help="a line of the manifest")
    told = parser.parse_args()
    cases = cohort(told.pairs, told.scans_each)
    began = time.perf_counter()
    ordered = by_shared_scans(cases)
    order_s = time.perf_counter() - began
    sample = cases[:20_000]
    began = time.perf_counter()
    for case in sample:
        case_key(case, {"do": ["register"]})
    keys_s = (time.perf_counter() - began) / len(sample) * told.pairs / told.shards
    line = json.dumps({"case": "p", "row": {f"column{k}": 0.123456 for k in range(20)}, "pad": "x" * 600})
    began = time.perf_counter()
    for _ in range(20_000):
        json.loads(line)
    lines_s = (time.perf_counter() - began) / 20_000 * told.pairs
    shards = [
        simulate(part(ordered, k, told.shards), told.workers, told.encode, told.pair)
        for k in range(1, told.shards + 1)
    ]
    longest = max(shard["seconds"] for shard in shards)
    scans = sum(len(case.scans) for case in cases) - told.pairs + told.pairs // (told.scans_each - 1)
    kept = sum(shard["kept"] for shard in shards)
    rows = {
        "pairs": told.pairs,
        "scans": scans,
        "encoded": int(sum(shard["encoded"] for shard in shards)),
        "days": round(longest / 86400, 2),
        "worker hours": round(told.shards * told.workers * longest / 3600),
        "share of the time that workers work": round(min(shard["busy"] for shard in shards), 4),
        "features kept at a time, GB": round(kept * told.store_mb / 1000, 1),
        "features if all were kept, TB": round(scans * told.store_mb / 1e6, 1),
        "manifests, GB": round(told.pairs * told.line_bytes / 1e9, 2),
        "ordering all cases, s": round(order_s, 1),
        "keys of a shard, s": round(keys_s, 1),
        "reading all manifests, s": round(lines_s, 1),
        "results a second": round(told.pairs / longest, 2),
    }
    for name, value in rows.items():
        print(f"{name:40} {value}")


if __name__ == "__main__":
    main()
