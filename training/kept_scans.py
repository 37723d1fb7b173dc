"""All scans of a run: read and drawn by several processes at once, and kept in a file if wanted."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from drawn_shapes import draw_shapes
from training_scans import Scan, draw_phantoms, load_mr, load_scans


@dataclass(frozen=True)
class Gathering:
    """Which scans a run sees.

    Attributes:
        scans: Folder of CT.
        mr: Folder of MR patients; empty: none.
        spacing_mm: Voxel size.
        phantoms: Number of drawn chests.
        phantom_weight: How often one is drawn, relative to a scan of its size.
        shapes: Number of drawn bodies of random tissues.
        shapes_weight: How often one is drawn, relative to a scan of its size.
    """

    scans: str
    mr: str
    spacing_mm: float
    phantoms: int
    phantom_weight: float
    shapes: int
    shapes_weight: float

    def gather(self) -> list[Scan]:
        """Read and draw all scans, several at once."""
        context = torch.multiprocessing.get_context("spawn")
        spacing = self.spacing_mm
        with ProcessPoolExecutor(os.cpu_count(), context, torch.set_num_threads, (1,)) as pool:
            scans = load_scans(Path(self.scans), spacing_mm=spacing, each=pool.map)
            scans += load_mr(Path(self.mr), spacing_mm=spacing, each=pool.map) if self.mr else []
            scans += draw_phantoms(self.phantoms, spacing_mm=spacing, weight=self.phantom_weight, each=pool.map)
            scans += draw_shapes(self.shapes, spacing_mm=spacing, weight=self.shapes_weight, each=pool.map)
        return scans


def gather_or_take(wanted: Gathering, kept: Path | None) -> list[Scan]:
    """Gather scans, or take those that a file keeps; the file is made if it is missing.

    Raises:
        SystemExit: Where the file keeps other scans than those that are wanted.
    """
    if kept is None or not kept.exists():
        scans = wanted.gather()
        if kept is not None:
            torch.save({"settings": asdict(wanted), "scans": scans}, kept)
        return scans
    content = torch.load(kept, weights_only=False)  # written above
    settings = content["settings"] if isinstance(content, dict) else {}
    for name, value in asdict(wanted).items():
        if settings.get(name) != value:
            raise SystemExit(
                f"{kept} keeps scans with {name} {settings.get(name)!r}, this run asks for {value!r}; "
                "name another file after --kept-scans, or delete this one"
            )
    return content["scans"]
