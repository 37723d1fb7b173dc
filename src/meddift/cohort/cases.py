"""`Case`: one unit of work and one row of the results, which is a pair of scans or a patient."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from meddift.errors import OptionsError

#: Steps that can be done with a case, in this order.
STEPS = ("match", "register", "track")
#: Files of a pair beside its two scans.
PAIR_FILES = ("points", "truth", "fixed_mask", "moving_mask", "labels", "prior")
#: Columns of a time point that name files.
TIME_POINT_FILES = ("scan", "lesions", "points", "lesion_table")


@dataclass(frozen=True)
class Labels:
    """BIDS entities from which the names of the files of a case are built.

    Attributes:
        subject: Label of the patient, letters and digits, without `sub-`.
        session: Session of the moving scan, without `ses-`; "" where there are no sessions.
        fixed: Label of the fixed scan in `from-` and `to-`.
        moving: Label of the moving scan in `from-` and `to-`.
        folder: Folder of the data type, `ct` or `anat`.
        suffix: BIDS suffix of the scans, such as `ct` or `T1w`.
    """

    subject: str
    session: str = ""
    fixed: str = "fixed"
    moving: str = "moving"
    folder: str = "ct"
    suffix: str = "ct"

    @property
    def stem(self) -> str:
        """Beginning of all file names: `sub-X` or `sub-X_ses-Y`."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    @property
    def place(self) -> Path:
        """Folder of the files, relative to the derivative."""
        return Path(f"sub-{self.subject}", *([f"ses-{self.session}"] if self.session else []), self.folder)


@dataclass(frozen=True)
class Case:
    """One pair of scans, or the scans of one patient.

    Attributes:
        name: Name of the row and of the folder with the result.
        steps: Steps to be done, a subset of `STEPS`.
        labels: BIDS entities for the names of the files.
        files: For a pair: role of a file ("fixed", "moving", or one of `PAIR_FILES`) -> absolute path.
        time_points: For a patient: rows of a table of time points (see `meddift.lesions`) with absolute paths.
        refusal: Why the case cannot be done, in one sentence; "" if it can.
    """

    name: str
    steps: tuple[str, ...]
    labels: Labels
    files: Mapping[str, str]
    time_points: tuple[Mapping[str, str], ...] = ()
    refusal: str = ""

    @property
    def scans(self) -> tuple[str, ...]:
        """Paths of the scans that are encoded for this case, without duplicates."""
        paths = [self.files[role] for role in ("fixed", "moving") if role in self.files]
        return tuple(dict.fromkeys(paths + [point["scan"] for point in self.time_points]))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Paths of all files that are read for this case, without duplicates."""
        others = [point[key] for point in self.time_points for key in TIME_POINT_FILES if point.get(key)]
        return tuple(dict.fromkeys([*self.files.values(), *others]))

    def as_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Case:
        """Restore a case from what `as_dict` returned."""
        return cls(
            content["name"], tuple(content["steps"]), Labels(**content["labels"]), dict(content["files"]),
            tuple(content["time_points"]), content["refusal"],
        )  # fmt: skip


def alphanumeric(text: str) -> str:
    """Remove all characters that a BIDS label must not contain: all but letters and digits."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


def check_names(cases: Sequence[Case], source: Path) -> None:
    """Check that no two cases would write to the same files.

    Args:
        cases: All cases of a plan.
        source: The table or folder they come from, for messages.

    Raises:
        OptionsError: if a name occurs twice or cannot be part of a file name, or if two cases have equal BIDS labels.
    """
    names: set[str] = set()
    places: dict[str, str] = {}
    for case in cases:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", case.name) or not case.labels.subject:
            raise OptionsError(
                f"{source}: {case.name!r} cannot be the name of a case; use letters, digits, '.', '-' and '_', and "
                f"begin with a letter or a digit"
            )
        # Some file systems ignore the case of letters.
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
    """Replace different paths of one file, such as links, by one path, so that each scan is encoded once."""
    spelled: dict[tuple[int, int], str] = {}
    known: dict[str, str] = {}

    def one(path: str) -> str:
        if path not in known:
            place = os.path.realpath(path)
            try:
                status = os.stat(place)  # noqa: PTH116 - a string in, and a million of them
            except OSError:
                known[path] = place  # a missing file: the case is refused later
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
