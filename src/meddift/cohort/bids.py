"""Read a BIDS data set: the scans of each patient in order of time, with their lesion masks and points."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from meddift.cohort.cases import Case, Labels
from meddift.cohort.folder import PLAN
from meddift.cohort.tables import Session, cases_of_patient, lonely
from meddift.errors import OptionsError
from meddift.tracking.tables import read_table
from meddift.tracking.timepoints import parse_date

#: Folder -> suffixes of scans in it. BIDS has no rules for CT yet; both folders and both suffixes are in use.
FOLDERS = {"ct": ("ct", "CT"), "anat": ("CT", "ct", "T1w", "T2w", "FLAIR", "PDw", "T1map")}
#: Where masks of lesions and points are looked for beside the scans.
_LESIONS = re.compile(r"_(label|desc)-(lesions?|tumou?rs?|nodules?)(_|$)", re.IGNORECASE)


def read_bids(root: Path, steps: Sequence[str], *, suffix: str | None = None) -> list[Case]:
    """Find the cases of a BIDS data set: the first scan of each patient paired with every later one.

    Scans lie in `sub-X/[ses-Y/]ct` or `anat`; sessions are ordered by `acq_time` of `sub-X_sessions.tsv`, else by
    their names. Masks of lesions (`*_label-lesion_mask`, `*_desc-lesions_dseg`, ...) and points
    (`*_points.mrk.json`, `.fcsv`, `.csv`) lie beside the scan or in a data set under `derivatives`.

    Args:
        root: Folder with the `sub-` folders.
        steps: Steps to be done, names of `cases.STEPS`.
        suffix: BIDS suffix of the scans, such as "ct" or "T1w"; None = CT, or the only suffix in the data set.

    Returns:
        Cases, sorted by the names of the patients. A case that cannot be done says why in `Case.refusal`.

    Raises:
        OptionsError: if there is no patient, or there are several kinds of scans and `suffix` is None.
    """
    subjects = sorted(path for path in root.glob("sub-*") if path.is_dir())
    if not subjects:
        raise OptionsError(f"{root} holds no folder sub-*: it is no BIDS data set; give one, or a table")
    kind = suffix or _kind(root, subjects)
    # Results of meddift are no input.
    others = [path for path in (root / "derivatives").glob("*") if path.is_dir() and not (path / PLAN).is_file()]
    marked = [root, *sorted(others)]
    cases: list[Case] = []
    for folder in subjects:
        cases += _patient(folder, kind, steps, marked)
    return cases


def _kind(root: Path, subjects: Sequence[Path]) -> str:
    """The BIDS suffix of the scans: CT if there is any, else the only one."""
    found = {name.lower(): name for subject in subjects for name in _scans(subject, None)}
    if "ct" in found:
        return "ct"
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise OptionsError(f"{root} holds no scan in sub-*/[ses-*/]ct or anat (.nii or .nii.gz)")
    raise OptionsError(
        f"{root} holds several kinds of scans ({', '.join(sorted(found.values()))}); choose one with --suffix"
    )


def _scans(session: Path, kind: str | None) -> dict[str, list[Path]]:
    """BIDS suffix -> scans of a session; for the folder of a patient, scans of all sessions."""
    found: dict[str, list[Path]] = {}
    for folder, suffixes in FOLDERS.items():
        for place in (session / folder, *sorted(session.glob(f"ses-*/{folder}"))):
            for path in sorted(place.glob("*.nii*")):
                name = _stem(path).rpartition("_")[2]
                wanted = name in suffixes if kind is None else name.lower() == kind.lower()
                if wanted and path.name.endswith((".nii", ".nii.gz")) and "_desc-" not in path.name:
                    found.setdefault(name, []).append(path)
    return found


def _patient(folder: Path, kind: str, steps: Sequence[str], marked: Sequence[Path]) -> list[Case]:
    subject = folder.name.removeprefix("sub-")
    labels = Labels(subject)
    dates, failure = _dates(folder)
    if failure:
        return [Case(subject, (), labels, {}, refusal=failure)]
    sessions = []
    for place in sorted(path for path in folder.glob("ses-*") if path.is_dir()):
        label = place.name.removeprefix("ses-")
        scans = [path for paths in _scans(place, kind).values() for path in paths]
        if not scans:
            continue
        if len(scans) > 1:
            names = ", ".join(path.name for path in scans)
            why = f"session {label} holds {len(scans)} scans ({names}), and nothing says which; name pairs in a table"
            return [Case(subject, (), labels, {}, refusal=why)]
        columns = {"timepoint": label, "scan": str(scans[0].absolute()), "date": dates.get(label, "")}
        sessions.append(Session(label, columns | _marks(scans[0], marked)))
        labels = Labels(subject, folder=scans[0].parent.name, suffix=_stem(scans[0]).rpartition("_")[2])
    if len(sessions) < 2:
        return [lonely(subject, labels)]
    dated = [bool(session.columns["date"]) for session in sessions]
    if any(dated) and not all(dated):
        why = f"{folder.name}_sessions.tsv has no acq_time for some sessions, so their order is not known"
        return [Case(subject, (), labels, {}, refusal=why)]
    sessions.sort(key=lambda session: session.columns["date"])  # ISO; without dates the order of the names stays
    return cases_of_patient(subject, sessions, steps, labels)


def _dates(folder: Path) -> tuple[dict[str, str], str]:
    """Session -> date as ISO 8601 text, from the table of sessions; and why the table cannot be used, or ""."""
    path = folder / f"{folder.name}_sessions.tsv"
    if not path.is_file():
        return {}, ""
    try:
        found = {}
        for row in read_table(path):
            text = row.get("acq_time", "").removesuffix("Z")
            date = None if text in ("", "n/a") else parse_date(text, str(path))
            if date is not None:
                found[row.get("session_id", "").removeprefix("ses-")] = date.isoformat()
    except OptionsError as error:
        return {}, str(error)
    return found, ""


def _marks(scan: Path, marked: Sequence[Path]) -> dict[str, str]:
    """Paths of the lesion mask and of the points of a scan, by column of a table of time points."""
    session, subject = scan.parent.parent, scan.parent.parent.parent
    stem = f"{subject.name}_{session.name}"
    found: dict[str, str] = {}
    for root in marked:
        for path in sorted((root / subject.name / session.name).glob(f"*/{stem}*")):
            name = _stem(path)
            if _LESIONS.search(name) and name.endswith(("_mask", "_dseg")):
                found.setdefault("lesions", str(path.absolute()))
            elif name.endswith("_points") and path.name.endswith((".mrk.json", ".fcsv", ".csv")):
                found.setdefault("points", str(path.absolute()))
    return found


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]
