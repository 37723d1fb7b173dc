"""Which rows there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        task: What is done, see `child.TASKS`.
        told: How.
        quick: Whether it is part of the quick run.
    """

    task: str
    told: dict[str, Any]
    quick: bool = True

    @property
    def key(self) -> str:
        """Name of its file."""
        parts = [f"{k}-{'x'.join(map(str, v)) if isinstance(v, list) else v}" for k, v in self.told.items()]
        return "_".join([self.task, *parts])


def cube(n: int) -> list[int]:
    return [n, n, n]


def search(way: str, image: list[int], network: list[int], points: int, *, quick: bool = True, **more: Any) -> Row:
    return Row(f"search.{way}", {"image": image, "network": network, "points": points, **more}, quick)


MACHINE = Row("machine", {})
PAPER, PAPER_NETWORK = [192, 192, 208], cube(256)
#: The same answer in other ways, where they fit.
ALTERNATIVES = [
    *[search(way, cube(64), cube(64), 512) for way in ("ours", "reference", "chunked", "faiss")],
    *[search(way, cube(96), cube(96), 512, quick=way != "faiss") for way in ("ours", "reference", "chunked", "faiss")],
    *[search(way, cube(128), cube(256), 512, quick=way == "ours") for way in ("ours", "chunked", "reference")],
    search("ours", PAPER, PAPER_NETWORK, 512),
]
POINTS = [search("ours", cube(128), cube(128), n, repeats=3 if n < 1000 else 1) for n in (1, 10, 100, 1000, 10_000)]
VOXELS = [search("ours", cube(n), cube(n), 64, repeats=3) for n in (64, 96, 128, 192, 256)]
_SIZES = [(n, way) for n in (64, 96, 128, 192, 256) for way in ("plain", "ours")]
ONE = Row("search.one", {"image": PAPER, "network": PAPER_NETWORK, "repeats": 41})
NETWORKS = [
    Row("network.builtin", {"shape": [180, 180, 170]}),
    Row("network.builtin", {"shape": [180, 180, 170], "model": "builtin-3"}),
    *[Row("network.encoder", {"shape": cube(n), "way": way}, n <= 96) for n, way in _SIZES],
    *[Row("network.unet", {"shape": cube(n), "way": way}, n <= 128) for n, way in _SIZES if n in (128, 256)],
]
DENSE = [Row(f"dense.{way}", {"image": cube(n), "channels": 256}) for n in (48, 64) for way in ("ours", "shifts")]
COMMAND = Row("command.match", {"shape": [180, 180, 170], "points": 300})
#: Of a chest at 2 mm, and of the lungs at the size of Learn2Reg's lung CT.
REGISTER = [Row("register.pair", {"shape": shape}) for shape in ([180, 180, 170], [115, 157, 129])]
TRACK = Row("track.patient", {"times": 5, "more": 9}, quick=False)

#: A process that asks once and again, on the device that `--device auto` takes.
DEVICE = Row("device.pair", {"shape": [180, 180, 170], "points": 300})
#: Networks of MAISI's size, on a graphics card alone: on a processor a pair takes many minutes.
MAISI = Row("device.maisi", {"shape": cube(256), "points": 512, "preset": "paper"}, quick=False)

#: The viewer in headless Chromium, which draws with the processor.
VIEWER = Row("viewer.page", {"shape": [180, 180, 170], "clicks": 50}, quick=False)

ROWS = [
    MACHINE,
    ONE,
    *ALTERNATIVES,
    *POINTS,
    *VOXELS,
    *DENSE,
    *NETWORKS,
    COMMAND,
    *REGISTER,
    TRACK,
    DEVICE,
    MAISI,
    VIEWER,
]

LABELS = {
    "search.ours": "ours",
    "search.reference": "reference",
    "search.chunked": "PyTorch in slabs",
    "search.faiss": "FAISS",
    "dense.ours": "ours",
    "dense.shifts": "one shift after another",
    "network.builtin": "builtin, all levels,",
    "network.encoder": "MAISI encoder",
    "network.unet": "MAISI U-Net for",
}
