"""Finding the cases that the value of `--data` names."""

from __future__ import annotations

from pathlib import Path

from meddift.errors import MissingFileError, OptionsError
from meddift_lab.running.case import Case
from meddift_lab.sets.catalogue import DATA_SETS


def find_cases(data: str, *, split: str | None = None, orientation: str = "LPS") -> list[Case]:
    """The cases of a data set.

    Args:
        data: `phantom-breathing`, `phantom-sliding`, `deformed:SCAN`, `deformed-sliding:SCAN`,
            `deformed-mr:SCAN[,SCAN]`, `deformed-abdomen:SCAN`, `pairs:FILE.csv`, `learn2reg:FOLDER`,
            `dirlab-4dct:FOLDER`, `dirlab-copd:FOLDER`; or the path of a `.csv` or of a folder with a
            `*_dataset.json`, whose type is recognised.
        split: Name of the list of pairs in a Learn2Reg data set; None = the first one, see `learn2reg_cases`.
        orientation: Directions of the axes of DIR-Lab's raw images, see `dirlab_cases`.

    Returns:
        The cases, not loaded yet.

    Raises:
        OptionsError: if it is none of these.
        MissingFileError: if the path does not exist.
        MeddiftError: if the data set is malformed.
    """
    kind, colon, rest = data.partition(":")
    if kind in ("phantom-breathing", "phantom-sliding") and not rest:
        from meddift_lab.sets.synthetic import phantom_breathing

        return phantom_breathing(sliding=kind == "phantom-sliding")
    if kind in ("deformed", "deformed-sliding", "deformed-mr", "deformed-abdomen") and colon:
        return _deformed(kind, [Path(part) for part in rest.split(",")] if kind == "deformed-mr" else [Path(rest)])
    kinds = ("pairs", "learn2reg", "dirlab-4dct", "dirlab-copd")
    if colon and kind in kinds:
        path = Path(rest)
    else:
        path = Path(data)
        if path.suffix.lower() == ".csv":
            kind = "pairs"
        elif path.is_dir() and any(path.glob("*_dataset.json")):
            kind = "learn2reg"
        else:
            usages = ", ".join(sorted({data_set.usage for data_set in DATA_SETS}))
            raise OptionsError(f"{data!r} is no data set and no folder of one; give one of {usages}")
    if not path.exists():
        raise MissingFileError(f"there is no {path}")
    if kind == "pairs":
        from meddift_lab.sets.pairs_csv import pairs_from_csv

        return pairs_from_csv(path)
    if kind == "learn2reg":
        from meddift_lab.sets.learn2reg import learn2reg_cases

        return learn2reg_cases(path, split=split)
    from meddift_lab.sets.dirlab import dirlab_cases

    return dirlab_cases(kind, path, orientation=orientation)


def _deformed(kind: str, scans: list[Path]) -> list[Case]:
    """Cases made by deforming the given scans."""
    from meddift_lab.sets.synthetic import deformed_copies, deformed_mr, mr_like_abdomens

    for scan in scans:
        if not scan.exists():
            raise MissingFileError(f"there is no {scan}")
    if kind == "deformed-mr":
        if len(scans) > 2:
            raise OptionsError(f"deformed-mr takes one scan or two contrasts of one patient, got {len(scans)}")
        return deformed_mr(scans[0], scans[-1])
    if kind == "deformed-abdomen":
        return mr_like_abdomens(scans[0])
    return deformed_copies(scans[0], sliding=kind == "deformed-sliding")
