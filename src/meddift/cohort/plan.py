"""`Plan`: what is to be done with which scans, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from meddift.cohort.cases import STEPS
from meddift.errors import OptionsError

#: Makes the engine in each worker.
ENGINE = "meddift.cohort.engine:make"


@dataclass(frozen=True)
class Files:
    """What is written for each pair beside the transform and the table of points.

    Attributes:
        inverse: The inverse transform.
        warped: The moving scan on the voxels of the fixed one.
        jacobian: Volume change.
        pictures: A picture, for the report.
    """

    inverse: bool = False
    warped: bool = False
    jacobian: bool = False
    pictures: bool = True


@dataclass(frozen=True)
class Plan:
    """What a cohort run does.

    Attributes:
        source: A table (`meddift.cohort.tables.read_cases`) or a BIDS folder.
        out: Folder of the results, which becomes a BIDS derivative; a run there is resumed.
        do: What is done with each case: any of "match", "register", "track".
        matcher: Keywords of `Matcher`, ready for JSON.
        files: What is written.
        points_space: Frame of points files that do not name it: "lps", "ras", "voxel" or "voxel1".
        suffix: Of a BIDS folder, the kind of scans, such as "ct" or "T1w"; None = the only one, or CT.
        workers: How many cases are done at a time; None = as many as processors, devices and memory allow.
        threads: Of each worker; None = processors divided by workers.
        shard: Which of how many parts: (1, 1) is all.
        ray: None: processes of this machine; "local": Ray on this machine; else the address of a Ray cluster.
        retry_failed: Whether what failed or was refused before is tried again.
        store: Folder for features; None = within `out`, where they are removed when no case needs them any more.
        engine: `module:function` that makes what does the work.

    Raises:
        OptionsError: if a value makes no sense.
    """

    source: Path | str
    out: Path | str
    do: tuple[str, ...] = ("register",)
    matcher: Mapping[str, Any] = field(default_factory=dict)
    files: Files = field(default_factory=Files)
    points_space: Literal["lps", "ras", "voxel", "voxel1"] | None = None
    suffix: str | None = None
    workers: int | None = None
    threads: int | None = None
    shard: tuple[int, int] = (1, 1)
    ray: str | None = None
    retry_failed: bool = False
    store: Path | str | None = None
    engine: str = ENGINE

    def __post_init__(self) -> None:
        """Validate."""
        unknown = [step for step in self.do if step not in STEPS]
        if unknown or not self.do:
            raise OptionsError(f"what is done is any of {', '.join(STEPS)}; got {', '.join(self.do) or 'nothing'}")
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionsError(f"{name} must be at least 1, got {value}")
        number, count = self.shard
        if not 1 <= number <= count:
            raise OptionsError(f"a shard is i/n with i from 1 to n, got {number}/{count}")
        taken = sorted({"store", "threads", "on_progress"} & set(self.matcher))
        if taken:
            raise OptionsError(f"{', '.join(taken)} of the matcher are set by the plan; leave them out")

    @property
    def source_path(self) -> Path:
        """The table or folder, absolute."""
        return Path(self.source).absolute()

    @property
    def out_path(self) -> Path:
        """The folder of results, absolute."""
        return Path(self.out).absolute()

    @property
    def work_path(self) -> Path:
        """Folder for what is not a result: features, logs of workers, locks."""
        return self.out_path / "work"

    @property
    def store_path(self) -> Path:
        """Folder of the features; every shard has its own, so that it can tell what is needed no more."""
        number, count = self.shard
        own = "features" if count == 1 else f"features-{number:04d}-of-{count:04d}"
        return self.work_path / own if self.store is None else Path(self.store).absolute()
