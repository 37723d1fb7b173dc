"""Write the averaged weights of a checkpoint as the package's built-in model: float16 safetensors in parts.

python training/export.py --run training/runs/first --out src/meddift/models/weights/builtin
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

#: Bytes of one part at most: small enough for every version control host and proxy.
PART_BYTES = 15_000_000


def write_parts(tensors: Mapping[str, torch.Tensor], out: Path, *, metadata: Mapping[str, str]) -> int:
    """Write tensors as float16, sorted by name, in parts `unet-0001.safetensors`...; returns the number of parts."""
    half = {name: value.half().contiguous() for name, value in sorted(tensors.items())}
    parts: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, value in half.items():
        if size + value.nbytes > PART_BYTES and parts[-1]:
            parts.append({})
            size = 0
        parts[-1][name] = value
        size += value.nbytes
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("unet-*.safetensors"):
        old.unlink()
    for number, part in enumerate(parts, 1):
        described = {"part": f"{number} of {len(parts)}", **metadata}
        file = out / f"unet-{number:04d}.safetensors"
        save_file(part, file, metadata=described)
        file.chmod(0o644)  # whoever installs the package may read it
    return len(parts)


def export_run(run: Path, out: Path) -> str:
    """Export the last checkpoint of a run; returns what was done, in words."""
    state = torch.load(run / "checkpoint.pt", weights_only=True, map_location="cpu")
    config = json.loads((run / "config.json").read_text())
    metadata = {
        "steps": str(state["step"]),
        "config": json.dumps(config, sort_keys=True),
    }
    parts = write_parts(state["average"], out, metadata=metadata)
    total = 2 * sum(value.numel() for value in state["average"].values())
    return f"{len(state['average'])} tensors, {total / 1e6:.1f} MB in {parts} parts, after {state['step']} steps"


def weights_metadata(folder: Path) -> dict[str, str]:
    """What was written into weights when they were exported."""
    with safe_open(str(sorted(folder.glob("unet-*.safetensors"))[0]), framework="pt") as file:
        return dict(file.metadata() or {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    print(export_run(arguments.run, arguments.out))


if __name__ == "__main__":
    main()
