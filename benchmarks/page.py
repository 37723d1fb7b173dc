"""docs/performance.md and its picture, from what has been measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rows
from lines import device_lines
from rows import LABELS, Row

Found = dict[str, dict[str, Any]]


def write(found: Found, folder: Path) -> None:
    """Write the page and its picture."""
    best = found.get(rows.MACHINE.key)
    if best is None:
        return
    curves(found, folder / "performance.png")
    text = "\n".join(
        [
            "# Performance",
            "",
            "Written by `make bench` (quick rows) and `python -m benchmarks --full` (all rows). Each row ran in a "
            "process of its own. Floors come from rates measured on the same machine, a second of one processor: "
            f"{best['flops'] / 1e9:.0f} GFLOP/s in a product of two 2048 x 2048 matrices, "
            f"{best['read_bytes'] / 1e9:.1f} "
            f"GB/s reading, {best['copy_bytes'] / 1e9:.1f} GB/s copying (read and write together), on "
            f"{best['threads']} thread(s), PyTorch {best['torch']}.",
            "",
            "Seconds are those of a clock on the wall; processor seconds count all threads. Floors and ratios are of "
            "processor seconds, which other work on the machine disturbs less. *Beyond* is the most memory "
            "held during "
            "the work beyond its inputs. *Load* is the number of other processes that were running just before: where "
            "it is above 1, seconds on the wall tell little. " + _where(found),
            "",
            *_commands(found, best),
            *_device(found),
            *_one(found, best),
            *_search(found),
            *_growth(found),
            *_dense(found, best),
            *_networks(found, best),
        ]
    )
    folder.mkdir(exist_ok=True)
    (folder / "performance.md").write_text(text.rstrip() + "\n")


def _table(heading: list[str], lines: list[list[str]]) -> list[str]:
    rule = ["---" if number == 0 else "---:" for number in range(len(heading))]
    return ["| " + " | ".join(cells) + " |" for cells in (heading, rule, *lines)] + [""]


def _commands(found: Found, best: dict[str, Any]) -> list[str]:
    row = found.get(rows.COMMAND.key)
    if row is None:
        return []
    cold, alone = row["cold"], row["import_torch"]
    lines = [
        ["cold: nothing stored", *_times(cold), _gb(row["cold_peak_bytes"])],
        ["again: features stored", *_times(row), _gb(row["peak_bytes"])],
        ["one point, features stored", *_times(row["one"]), ""],
        ["`import torch` and nothing else", *_times(alone), ""],
    ]
    error = 100 * (row["estimated_bytes"] / row["cold_peak_bytes"] - 1)
    return [
        "## The command",
        "",
        "`meddift match` on a drawn chest of 180 x 180 x 170 voxels of 2 mm before and after breathing, 300 points, "
        "default preset, `builtin` model, from files to a file. "
        f"Load before: {row['load_before']}. Both runs wrote the same bytes: {'yes' if row['same'] else 'NO'}.",
        "",
        *_table(["run", "seconds", "processor seconds", "peak memory"], lines),
        f"`--dry-run` had said {_gb(row['estimated_bytes'])}: {error:+.0f} % of the measured peak of the cold run.",
        "",
        "Stages of both runs, seconds on the wall: "
        + "; ".join(
            f"{name} {cold_time:.1f} / {row['timing'][1].get(name, 0):.1f}"
            for name, cold_time in row["timing"][0].items()
        )
        + ".",
        "",
        *_following(found),
    ]


def _following(found: Found) -> list[str]:
    """Registration and lesions over time."""
    lines, loads = [], []
    for task in rows.REGISTER:
        row = found.get(task.key)
        if row is not None:
            shape = " x ".join(map(str, row["told"]["shape"]))
            for name, part in ((f"{shape}, nothing stored", row["cold"]), (f"{shape}, features stored", row)):
                lines.append([f"`meddift register`, {name}", *_times(part), _gb(part["peak_bytes"])])
            loads.append(f"{row['load_before']}")
    row = found.get(rows.TRACK.key)
    if row is not None:
        shape, lesions = " x ".join(map(str, row["shape"])), row["lesions"]
        name = f"{len(lesions)} scans of {shape} voxels, {min(lesions)} to {max(lesions)} lesions in each"
        lines.append([f"`meddift track`, {name}, features stored", *_times(row), _gb(row["peak_bytes"])])
        loads.append(f"{row['load_before']}")
    if not lines:
        return []
    return [
        "## Registration, and lesions over time",
        "",
        "`python -m benchmarks --only register`, `--only track`: drawn chests of 2 mm, from files to files. "
        f"Load before: {', '.join(loads)}.",
        "",
        *_table(["command", "seconds", "processor seconds", "peak memory"], lines),
    ]


def _where(found: Found) -> str:
    """Whether anything was measured on a graphics card."""
    device = found.get(rows.DEVICE.key, {}).get("device", "")
    if device:
        return f"Rows of *a warm process* were measured on {device}, all others on the processor."
    return "Nothing here was measured on a GPU with this code: it runs there as well, but how fast is not known."


def _device(found: Found) -> list[str]:
    row = found.get(rows.DEVICE.key)
    if row is None:
        return []
    return [
        "## A warm process",
        "",
        "`python -m benchmarks --only device`: a drawn chest of 180 x 180 x 170 voxels before and after breathing, "
        "300 points, nothing stored; the second round in one process, seconds on the wall. Floors are products and "
        "convolutions at the rate of a large matrix product; what threads of our own compute is not in them. "
        f"Load before: {row['load_before']}.{_code(row)}",
        "",
        *(f"- {line}" for line in device_lines(row)),
        "",
        *_maisi(found),
    ]


def _maisi(found: Found) -> list[str]:
    """The same with networks of MAISI's size."""
    row = found.get(rows.MAISI.key)
    if row is None:
        return []
    return [
        "`python -m benchmarks --only device.maisi`: networks of MAISI's layout (CT, DDPM) with random weights, "
        f"preset `{row['told']['preset']}`, a drawn chest of {' x '.join(map(str, row['told']['shape']))} voxels, "
        f"{row['points']} points; the second round in one process. *search*: all voxels of the moving scan, *back*: "
        "from there all voxels of the fixed scan. "
        f"Most memory on the device: {_gb(row['device_peak_bytes'])}. Load before: {row['load_before']}.{_code(row)}",
        "",
        *(f"- {line}" for line in device_lines(row)),
        "",
    ]


def _code(row: dict[str, Any]) -> str:
    """Of which commit the code was, where a row was measured on a machine of its own."""
    return (
        f" Code of commit {row['code']}; what was changed since then was not measured there." if "code" in row else ""
    )


def _one(found: Found, best: dict[str, Any]) -> list[str]:
    row = found.get(rows.ONE.key)
    if row is None:
        return []
    floor = row["feature_bytes"] / best["read_bytes"]
    return [
        "## One new point on an encoded pair",
        "",
        "Descriptor, global search over 192 x 192 x 208 voxels and the best rival, features of MAISI's size "
        f"({_gb(row['feature_bytes'])}), median of {row['repeats']}. Load before: {row['load_before']}.",
        "",
        *_table(
            ["", "milliseconds", "processor ms", "floor: features read once", "ratio", "beyond"],
            [
                [
                    "one point",
                    f"{1e3 * row['seconds']:.0f}",
                    f"{1e3 * row['processor_seconds']:.0f}",
                    f"{1e3 * floor:.0f} ms",
                    f"{row['processor_seconds'] / floor:.1f}",
                    _mb(row["beyond_bytes"]),
                ]
            ],
        ),
    ]


def _search(found: Found) -> list[str]:
    lines = []
    for row in rows.ALTERNATIVES:
        result = found.get(row.key)
        if result is None or "seconds" not in result:
            continue
        ours = found.get(Row("search.ours", row.told).key)
        same = ""
        if "same" in result:
            same = f"{result['same']} of {row.told['points']}"
            if result["lost"]:
                same += f"; {max(result['lost']):+.0e}"
        once = f"{result['once_seconds']:.2f}" if "once_seconds" in result else ""
        ratio, memory = (_times_ours(result, ours, key, ".0f") for key in ("processor_seconds", "beyond_bytes"))
        image = "x".join(map(str, row.told["image"]))
        lines.append(
            [f"{image}, {row.told['points']} points: {LABELS[row.task]}", once, *_times(result),
             ratio, _mb(result["beyond_bytes"]), memory, same, str(result["load_before"])]
        )  # fmt: skip
    if not lines:
        return []
    heading = [
        "search", "once a scan", "seconds", "processor seconds", "times ours", "beyond", "times ours",
        "same voxel; ours less similar by", "load",
    ]  # fmt: skip
    return [
        "## Global search: the same answer in other ways",
        "",
        "Levels of MAISI's decoder (512, 256, 128, 64 channels at 1/16, 1/8, 1/4, 1/4 of the network's "
        "input: 256^3 for "
        "the images of 128^3 and 192 x 192 x 208, else the image's own size). *reference*: every level "
        "at every voxel of "
        "the image, normalised, times all points, as the paper's code does. *PyTorch in slabs*: the "
        "same a few planes at "
        "a time. *FAISS*: its exact index of all voxels' descriptors. Where voxels differ, both "
        "similarities were computed anew in float64, and the figure beside it is the most by which ours is the less "
        "similar one (negative: it is always the more similar one); float32 rounds at 6e-08. "
        "*Once a scan*: what is made once and serves every later search, processor seconds.",
        "",
        *_table(heading, lines),
    ]


def _growth(found: Found) -> list[str]:
    text = [
        "## Growth", "", "![Seconds against points and against voxels](performance.png)", "",
        "Processor seconds; the dotted line is what twice the work in twice the time would be. Features "
        "of the image's "
        "own size: 128^3 for the points.", "",
    ]  # fmt: skip
    points = [found[r.key] for r in rows.POINTS if r.key in found]
    if points:
        lines = [
            [f"{r['told']['points']:,}", *_times(r), f"{1e3 * r['processor_seconds'] / r['told']['points']:.2f}",
             f"{100 * r['visited']:.2f} %", _mb(r["beyond_bytes"])]
            for r in points
        ]  # fmt: skip
        heading = ["points, image 128^3", "seconds", "processor seconds", "ms a point", "blocks visited", "beyond"]
        text += _table(heading, lines)
    voxels = [found[r.key] for r in rows.VOXELS if r.key in found]
    if voxels:
        lines = [
            [f"{r['told']['image'][0]}^3", *_times(r),
             f"{1e9 * r['processor_seconds'] / np.prod(r['told']['image']):.0f}",
             f"{100 * r['visited']:.2f} %", _mb(r["beyond_bytes"])]
            for r in voxels
        ]  # fmt: skip
        heading = ["image, 64 points", "seconds", "processor seconds", "ns a voxel", "blocks visited", "beyond"]
        text += _table(heading, lines)
    return text if points or voxels else []


def _dense(found: Found, best: dict[str, Any]) -> list[str]:
    lines = []
    for row in rows.DENSE:
        result = found.get(row.key)
        if result is None:
            continue
        ours, floor = found.get(Row("dense.ours", row.told).key), result["flops"] / best["flops"]
        apart = ""
        if ours is not None and ours is not result:
            apart = f"{np.abs(np.array(ours['some']) - np.array(result['some'])).max():.0e}"
        lines.append(
            [f"{'x'.join(map(str, row.told['image']))}: {LABELS[row.task]}", f"{floor:.2f}", *_times(result),
             f"{result['processor_seconds'] / floor:.1f}",
             _times_ours(result, ours, "processor_seconds", ".1f"),
             _mb(result["beyond_bytes"]), apart, str(result["load_before"])]
        )  # fmt: skip
    if not lines:
        return []
    heading = [
        "grid", "floor, s", "seconds", "processor seconds", "times floor", "times ours", "beyond",
        "largest difference", "load",
    ]  # fmt: skip
    return [
        "## Dense matching",
        "",
        "Every second voxel of a grid with 256 channels against the 7^3 voxels around it, 3^3 neighbours compared "
        "along with each, as `meddift register` does. The floor is one product of two descriptors for every voxel and "
        "offset, at the rate of a matrix product.",
        "",
        *_table(heading, lines),
    ]


def _networks(found: Found, best: dict[str, Any]) -> list[str]:
    lines = []
    for row in rows.NETWORKS:
        result = found.get(row.key)
        if result is None:
            continue
        floor = result["flops"] / best["flops"]
        other = found.get(Row(row.task, {**row.told, "way": "plain"}).key) if "way" in row.told else None
        agree = ""
        if other is not None and other is not result and "latent" in result:
            one, two = np.array(result["latent"]), np.array(other["latent"])
            agree = f"{np.abs(one - two).max() / np.abs(two).max():.0e}"
        faster = "" if other is None else _times_ours(other, result, "processor_seconds", ".2f")
        name = f"{LABELS[row.task]} {'x'.join(map(str, row.told['shape']))}"
        if "model" in row.told:
            name += f", {row.told['model']}"
        if "way" in row.told:
            name += ", as written" if row.told["way"] == "plain" else ", ours"
        lines.append(
            [name, f"{result['flops'] / 1e12:.2f}", f"{floor:.1f}", *_times(result),
             f"{result['processor_seconds'] / floor:.1f}", faster, _gb(result["peak_bytes"]),
             agree, str(result["load_before"])]
        )  # fmt: skip
    if not lines:
        return []
    heading = [
        "network", "TFLOP", "floor, s", "seconds", "processor seconds", "times floor", "plain over ours", "peak",
        "largest difference", "load",
    ]  # fmt: skip
    return [
        "## Encoding",
        "",
        "Random weights where the published ones are not at hand: time and memory do not depend on "
        "them. The floor is the "
        "network's arithmetic at the rate of a matrix product; differences are relative to the largest value.",
        "",
        *_table(heading, lines),
    ]


def curves(found: Found, path: Path) -> None:
    """Seconds against points, and against voxels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    panels = (
        (rows.POINTS, lambda r: r["told"]["points"], "points (image 128$^3$)"),
        (rows.VOXELS, lambda r: np.prod(r["told"]["image"]), "voxels of the image (64 points)"),
    )
    for axis, (chosen, size, label) in zip(axes, panels, strict=True):
        results = [found[row.key] for row in chosen if row.key in found]
        if not results:
            continue
        x = np.array([float(size(r)) for r in results])
        wall = np.array([r["processor_seconds"] for r in results])
        axis.loglog(x, wall, "o-", color="#1f6fb2", label="search")
        axis.loglog(x, wall[-1] * x / x[-1], ":", color="#888888", label="proportional")
        axis.set_xlabel(label)
        axis.set_ylabel("processor seconds")
        axis.grid(True, which="both", alpha=0.25)
        axis.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _times_ours(other: dict[str, Any], ours: dict[str, Any] | None, key: str, form: str) -> str:
    """How many times ours another way takes; "" where there is none, or it is ours."""
    return "" if ours is None or ours is other else format(other[key] / ours[key], form)


def _times(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['seconds']:.3g}", f"{row['processor_seconds']:.3g}"


def _gb(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def _mb(count: float) -> str:
    return f"{count / 1e6:,.0f} MB"
