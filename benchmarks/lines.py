"""What was measured on a device, in words."""

from __future__ import annotations

from typing import Any


def device_lines(row: dict[str, Any]) -> list[str]:
    """What was measured, a line a stage."""
    lines = [f"device: {row['device'] or 'none beside the processor; nothing here was measured on a GPU'}"]
    lines.append(f"from two scans to matches: {row['match_seconds']:.2f} s")
    for name, seconds in row["seconds_of"].items():
        floor, busy = row["flops_of"][name] / row["rate"], row["busy"][name]
        share = "no device" if busy is None else f"device busy {100 * busy:.0f} % of the time"
        lines.append(f"{name}: {seconds:.2f} s, floor {floor:.2f} s, {share}")
    if "new_shape" in row:
        new = row["new_shape"]
        shapes = " and ".join(" x ".join(map(str, shape)) for shape in new["network_shapes"])
        lines.append(
            f"encode for a pair of another shape ({shapes} in the network): {new['seconds']:.2f} s the first time, "
            f"{new['again_seconds']:.2f} s the second time"
        )
    return lines


def profile_lines(row: dict[str, Any]) -> list[str]:
    """Where the time of each stage went: copies and waits, kernels, operations and functions that took longest."""
    lines = [f"seconds of parts: {', '.join(f'{name} {seconds:.3f}' for name, seconds in row['parts'].items())}"]
    lines += [
        f"packages loaded: {', '.join(row['packages'])}",
        f"most on the device: {row['device_peak_bytes']:,} bytes",
    ]
    for name, seen in row["profiled"].items():
        lines.append(f"== {name}: first {row['first_seconds_of'][name]:.2f} s, profiled {seen['seconds']:.2f} s")
        lines.append("  " + ", ".join(f"{key} {count}" for key, count in sorted(seen["counts"].items())))
        for kind in ("kernels", "operations"):
            lines += [f"  {kind[:-1]:9} {took:8.4f} s {count:6} x  {key[:90]}" for key, took, count in seen[kind]]
        lines += [f"  function  {took:8.4f} s {count:6} x  {key[:90]}" for key, took, count in row["functions"][name]]
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
