"""What was measured on a device, in words."""

from __future__ import annotations

from typing import Any


def device_lines(row: dict[str, Any]) -> list[str]:
    """What was measured, a line a stage."""
    lines = [f"device: {row['device'] or 'none beside the processor; nothing here was measured on a GPU'}"]
    for name, seconds in row["seconds_of"].items():
        floor, busy = row["flops_of"][name] / row["rate"], row["busy"][name]
        share = "no device" if busy is None else f"device busy {100 * busy:.0f} % of the time"
        lines.append(f"{name}: {seconds:.2f} s, floor {floor:.2f} s, {share}")
    parts = (f"{name} {row['parts'][name]:.2f} s" for name in ("dense", "refine", "inverse") if name in row["parts"])
    lines.append(f"of register: {', '.join(parts)}")
    return lines


def viewing_lines(row: dict[str, Any]) -> list[str]:
    """What was measured, a line a fact."""
    if "missing" in row:
        return [f"the page was not measured: {row['missing']}"]
    return [
        f"both scans shown: {row['shown_seconds']:.2f} s",
        f"ready to answer: {row['ready_seconds']:.1f} s from the store, {row['cold_seconds']:.0f} s computed anew",
        f"click to answer: median {row['seconds']:.3f} s of {row['clicks']}, slowest {row['slowest_seconds']:.3f} s",
        f"click to map: median {row['map_seconds']:.3f} s, slowest {row['slowest_map_seconds']:.3f} s",
    ]
