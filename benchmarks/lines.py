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
