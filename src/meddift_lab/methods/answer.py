"""The one protocol of all methods: fixed, moving, points -> points."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import DisplacementField, Grid
from meddift.volume import Volume

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Answer:
    """The result of a method.

    Attributes:
        positions: (N, 3) float64, world RAS mm on the moving scan; NaN where no match was found.
        field: Makes the displacement field on a grid of the fixed scan; None for methods that know points only.
        details: Further entries of the result, ready for JSON.
    """

    positions: Floats
    field: Callable[[Grid], DisplacementField] | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Find(Protocol):
    """A method at work."""

    def __call__(
        self, fixed: Volume, moving: Volume, points: Floats, *, settings: Mapping[str, Any], work: Path
    ) -> Answer:
        """Find points.

        Args:
            fixed: The scan in which points are given.
            moving: The scan in which they are looked for.
            points: (N, 3) float64, world RAS mm, on the fixed scan.
            settings: Settings of the method, see `Method`.
            work: An empty folder for temporary files, removed afterwards.
        """
        ...


@dataclass(frozen=True, eq=False)
class Method:
    """A method with its settings.

    Attributes:
        name: For `--method` and file names.
        title: For tables.
        home: `module:function` of a `Find`; imported only in the process that runs it.
        settings: Ready for JSON; they decide whether a result can be reused.
        packages: Distributions that it needs; their versions decide too.
        modules: What it imports; loaded before the clock of the method starts.
        source: Where the settings come from.
        own: Whether it is part of meddift, so that its result depends on meddift's code and weights.
        requirement: `module:function` that says why it cannot run here, or returns None.
    """

    name: str
    title: str
    home: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    source: str = ""
    own: bool = False
    requirement: str | None = None

    def load(self) -> Find:
        """Import and return the function of the method."""
        for module in self.modules:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(module)
        found: Find = _attribute(self.home)
        return found

    def versions(self) -> dict[str, str]:
        """Versions of its packages; those that are not installed are left out."""
        versions = {}
        for package in self.packages:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        return versions

    def unavailable(self) -> str | None:
        """Why it cannot run on this machine; None if it can."""
        lacking = [package for package in self.packages if package not in self.versions()]
        if lacking:
            return f"not installed: {', '.join(lacking)} (pip install {' '.join(lacking)})"
        if self.requirement is None:
            return None
        reason: str | None = _attribute(self.requirement)()
        return reason


def _attribute(home: str) -> Any:
    module, _, name = home.partition(":")
    return getattr(importlib.import_module(module), name)
