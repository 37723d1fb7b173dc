"""Write the averaged weights of a checkpoint as the package's built-in model: float16 safetensors in parts.

python training/export.py --run training/runs/first --out src/meddift/models/weights/builtin
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

#: Bytes of one part at most: small enough for every version control host and proxy.
PART_BYTES = 15_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    state = torch.load(arguments.run / "checkpoint.pt", weights_only=True, map_location="cpu")
    config = json.loads((arguments.run / "config.json").read_text())
    tensors = {name: value.half().contiguous() for name, value in sorted(state["average"].items())}
    parts: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, value in tensors.items():
        if size + value.nbytes > PART_BYTES and parts[-1]:
            parts.append({})
            size = 0
        parts[-1][name] = value
        size += value.nbytes
    arguments.out.mkdir(parents=True, exist_ok=True)
    for old in arguments.out.glob("unet-*.safetensors"):
        old.unlink()
    for number, part in enumerate(parts, 1):
        metadata = {
            "part": f"{number} of {len(parts)}",
            "steps": str(state["step"]),
            "hours": f"{state['seconds'] / 3600:.2f}",
            "config": json.dumps(config, sort_keys=True),
        }
        save_file(part, arguments.out / f"unet-{number:04d}.safetensors", metadata=metadata)
    total = sum(value.nbytes for value in tensors.values())
    print(f"{len(tensors)} tensors, {total / 1e6:.1f} MB in {len(parts)} parts, after {state['step']} steps")


if __name__ == "__main__":
    main()
