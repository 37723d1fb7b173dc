"""`Plan`: input, output, steps and settings of a cohort run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from meddift.cohort.cases import STEPS
from meddift.errors import OptionsError

#: Function that creates the engine in each worker.
ENGINE = "meddift.cohort.engine:make"


@dataclass(frozen=True)
class Files:
    """Files written for each pair in addition to the transform and the table of points.

    Attributes:
        inverse: Whether to write the inverse transform.
        warped: Whether to write the moving scan resampled onto the grid of the fixed scan.
        jacobian: Whether to write the map of the Jacobian determinant.
        pictures: Whether to draw a picture for the report.
    """

    inverse: bool = False
    warped: bool = False
    jacobian: bool = False
    pictures: bool = True


@dataclass(frozen=True)
class Plan:
    """Input, output, steps and settings of a cohort run.

    Attributes:
        source: A table (`meddift.cohort.tables.read_cases`) or a BIDS folder.
        out: Output folder, which becomes a BIDS derivative. A run that was begun there is resumed.
        do: Steps done with each case: any of "match", "register", "track".
        matcher: Keywords of `Matcher`, ready for JSON.
        files: Which optional files to write.
        points_space: Frame of points files that do not name it: "lps", "ras", "voxel" or "voxel1".
        suffix: BIDS suffix of the scans of a BIDS folder, such as "ct" or "T1w"; None = CT, or the only suffix.
        workers: Number of cases processed at a time; None = as many as processors, devices and memory allow.
        threads: Number of threads of each worker; None = number of processors divided by `workers`.
        shard: Number of this part, counted from 1, and number of parts; (1, 1) is the whole cohort.
        ray: None = processes of this machine; "local" = Ray on this machine; else the address of a Ray cluster.
        retry_failed: Whether cases that failed or were refused in an earlier run are tried again.
        store: Folder for features; None = inside `out`, where features are removed once no case needs them.
        engine: `module:function` that creates the engine, see `worker.Engine`.

    Raises:
        OptionsError: if a value is invalid.
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
            raise OptionsError(f"steps are any of {', '.join(STEPS)}; got {', '.join(self.do) or 'none'}")
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
        """Absolute path of the table or BIDS folder."""
        return Path(self.source).absolute()

    @property
    def out_path(self) -> Path:
        """Absolute path of the output folder."""
        return Path(self.out).absolute()

    @property
    def work_path(self) -> Path:
        """Folder for working files: features, logs of workers, locks."""
        return self.out_path / "work"

    @property
    def store_path(self) -> Path:
        """Folder of the features; each shard has its own, so that it knows which features are no longer needed."""
        number, count = self.shard
        own = "features" if count == 1 else f"features-{number:04d}-of-{count:04d}"
        return self.work_path / own if self.store is None else Path(self.store).absolute()
