"""`Case`: one row of the results, which is one pair of scans or one patient."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from meddift.errors import OptionsError

#: What can be done with a case, in this order.
STEPS = ("match", "register", "track")
#: Files of a pair beside its two scans.
PAIR_FILES = ("points", "truth", "fixed_mask", "moving_mask", "labels", "prior")
#: Columns of a time point that name files.
TIME_POINT_FILES = ("scan", "lesions", "points", "lesion_table")


@dataclass(frozen=True)
class Labels:
    """What BIDS calls the files of a case.

    Attributes:
        subject: Letters and digits, without `sub-`.
        session: That of the moving scan, without `ses-`; "" where there are no sessions.
        fixed: What the fixed scan is called in `from-` and `to-`.
        moving: The same of the moving scan.
        folder: `ct` or `anat`.
        suffix: Of the scans, such as `ct` or `T1w`.
    """

    subject: str
    session: str = ""
    fixed: str = "fixed"
    moving: str = "moving"
    folder: str = "ct"
    suffix: str = "ct"

    @property
    def stem(self) -> str:
        """What the names of its files begin with."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    @property
    def place(self) -> Path:
        """Folder of its files in a derivative."""
        return Path(f"sub-{self.subject}", *([f"ses-{self.session}"] if self.session else []), self.folder)


@dataclass(frozen=True)
class Case:
    """One pair of scans, or the scans of one patient.

    Attributes:
        name: Of the row and of the folder with its result.
        steps: What is done with it, of `STEPS`.
        labels: What BIDS calls its files.
        files: What a file is for ("fixed", "moving", or one of `PAIR_FILES`) -> absolute path; for a pair.
        time_points: Columns of a table of time points with absolute paths; for a patient.
        refusal: Why nothing can be done with it; "" if something can.
    """

    name: str
    steps: tuple[str, ...]
    labels: Labels
    files: Mapping[str, str]
    time_points: tuple[Mapping[str, str], ...] = ()
    refusal: str = ""

    @property
    def scans(self) -> tuple[str, ...]:
        """Paths of the scans that are encoded for it, each once."""
        paths = [self.files[role] for role in ("fixed", "moving") if role in self.files]
        return tuple(dict.fromkeys(paths + [point["scan"] for point in self.time_points]))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Paths of all files that are read for it, each once."""
        others = [point[key] for point in self.time_points for key in TIME_POINT_FILES if point.get(key)]
        return tuple(dict.fromkeys([*self.files.values(), *others]))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Case:
        """The way back."""
        return cls(
            content["name"], tuple(content["steps"]), Labels(**content["labels"]), dict(content["files"]),
            tuple(content["time_points"]), content["refusal"],
        )  # fmt: skip


def alphanumeric(text: str) -> str:
    """Text as a label of BIDS, which has letters and digits only."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


def check_names(cases: Sequence[Case], source: Path) -> None:
    """Refuse cases that would write to the same place.

    Raises:
        OptionsError: if a name is given twice, is no part of a file name, or two are the same label of BIDS.
    """
    names: set[str] = set()
    places: dict[str, str] = {}
    for case in cases:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", case.name) or not case.labels.subject:
            raise OptionsError(
                f"{source}: {case.name!r} cannot be the name of a case; use letters, digits, '.', '-' and '_', and "
                f"begin with a letter or a digit"
            )
        # Some file systems do not tell large letters from small ones.
        if case.name.casefold() in names:
            raise OptionsError(f"{source}: the case {case.name!r} is given twice; give each a name of its own")
        names.add(case.name.casefold())
        what = "lesions" if case.time_points else f"{case.labels.moving} {case.labels.fixed}"
        place = f"{case.labels.place} {case.labels.stem} {what}".casefold()
        if place in places:
            raise OptionsError(
                f"{source}: the cases {places[place]!r} and {case.name!r} would write to the same files, as labels of "
                f"BIDS have letters and digits only; rename one of them"
            )
        places[place] = case.name


def with_one_spelling(cases: Iterable[Case]) -> list[Case]:
    """The same cases with one path for each scan, so that it is encoded once however it is spelled or linked."""
    spelled: dict[tuple[int, int], str] = {}
    known: dict[str, str] = {}

    def one(path: str) -> str:
        if path not in known:
            place = os.path.realpath(path)
            try:
                status = os.stat(place)  # noqa: PTH116 - a string in, and a million of them
            except OSError:
                known[path] = place  # the case is refused for it
            else:
                known[path] = spelled.setdefault((status.st_dev, status.st_ino), place) if status.st_ino else place
        return known[path]

    return [
        replace(
            case,
            files={role: one(path) if role in ("fixed", "moving") else path for role, path in case.files.items()},
            time_points=tuple({**point, "scan": one(point["scan"])} for point in case.time_points),
        )
        for case in cases
    ]
