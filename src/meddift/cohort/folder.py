"""The output folder of a cohort: a BIDS derivative that holds results of one plan only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import meddift
from meddift.errors import MissingFileError, OptionsError, OutputError
from meddift.system.atomic import write_json, write_text
from meddift.system.folders import check_folder, make_folder
from meddift.system.temporary import is_left_over

#: Name of the file that marks a folder as the output of a cohort.
PLAN = "plan.json"
#: Format version of the folder, increased when older results can no longer be read.
LAYOUT = 1

#: Content of `.bidsignore`: files without a BIDS rule, which are CT, transforms and records of the run.
_IGNORED = (
    "cases", "work", "manifest*.jsonl", PLAN, "cohort.*", "report.html", "**/ct", "**/lesions", "**/*_xfm.*",
    "**/*_points.*", "**/*_table.*", "**/*_desc-warped_*", "**/*_desc-jacobian_*",
)  # fmt: skip

_README = """# Results of meddift

Made by `meddift cohort`. `report.html` sums them up; `cohort.tsv` has a row a case; `cases/NAME/result.json` and
`log.txt` say how each went. Points are in world RAS mm.

`*_from-A_to-B_mode-image_xfm.h5` takes the image of A onto the voxels of B (ITK, 3D Slicer, ANTs: resample the image
of A with it as it stands). As a map of points the same file takes points of B to A.

For research; not a medical device.
"""


def check_out(out: Path, settings: Mapping[str, Any], *, source: Path) -> None:
    """Check that this plan may write to a folder, without creating anything.

    Args:
        out: Output folder, absolute.
        settings: All settings on which the results depend, ready for JSON.
        source: Table or BIDS folder that is read.

    Raises:
        OutputError: if the folder cannot be written to, or holds files that meddift has not made.
        OptionsError: if it holds results of another plan, or the source lies in it.
    """
    if source.resolve().is_relative_to(out.resolve()):
        raise OptionsError(f"{source} lies in the output folder {out}; give another folder")
    if out.exists():
        check_folder(out, lambda folder: (folder / PLAN).is_file())
    known = _known(out)
    if known is not None:
        told = known.get("settings", {})
        other = [name for name in settings if told.get(name) != settings[name]]
        if other:
            differences = "; ".join(f"{name} was {told.get(name)!r} and is {settings[name]!r} now" for name in other)
            raise OptionsError(
                f"{out} holds results of another plan ({differences}); give another folder, so that results are "
                f"not mixed"
            )


def write_frame(out: Path, settings: Mapping[str, Any], *, source: Path, cases: int) -> None:
    """Write the plan and the files that make the folder a BIDS derivative.

    Args:
        out: Output folder, absolute.
        settings: All settings on which the results depend, ready for JSON.
        source: Table or BIDS folder that is read.
        cases: Number of cases of the plan.

    Raises:
        OutputError: if a file cannot be written.
    """
    make_folder(out)
    for path in out.glob(".tmp-*"):
        if is_left_over(path, after_end=0.0):
            path.unlink(missing_ok=True)
    description = {
        "Name": "Correspondences found by meddift",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "meddift", "Version": meddift.__version__,
                         "CodeURL": "https://github.com/meddift/meddift"}],
        "SourceDatasets": [{"URL": source.resolve().as_uri()}],
    }  # fmt: skip
    content = {"layout": LAYOUT, "settings": dict(settings), "source": str(source), "cases": cases}
    write_json(content, out / PLAN)
    write_json(description, out / "dataset_description.json")
    write_text("".join(f"{line}\n" for line in _IGNORED), out / ".bidsignore")
    write_text(_README, out / "README.md")


def planned(out: Path) -> dict[str, Any]:
    """Read `plan.json` of an output folder.

    Raises:
        MissingFileError: if the folder holds no cohort.
    """
    known = _known(out)
    if known is None:
        raise MissingFileError(f"there is no {PLAN} in {out}: no cohort was begun there")
    return known


def _known(out: Path) -> dict[str, Any] | None:
    path = out / PLAN
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read: {error}. Restore it, or give another folder") from error
    if not isinstance(content, dict) or content.get("layout") != LAYOUT:
        raise OptionsError(f"{path} was written by another version of meddift; give another folder")
    return content
