"""Following the lesions of many patients whose truth is known: one result a patient, one table of scores."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import meddift.tracking
import meddift_lab.longitudinal
from meddift.errors import MissingFileError, OptionsError
from meddift.system.atomic import write_json
from meddift.tracking.run import track
from meddift.tracking.timepoints import TimePoint
from meddift_lab.longitudinal.patient import LongitudinalPatient, drawn_patient, patient_of_scan
from meddift_lab.longitudinal.scores import Scores, score

if TYPE_CHECKING:
    from meddift.pipeline import Matcher

#: Name of the data set; `longitudinal:SCAN` makes patients of a scan.
NAME = "longitudinal"
#: Seed of the first patient.
FIRST_SEED = 3000

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class PatientResult:
    """What came of one patient.

    Attributes:
        name: Of the patient.
        scores: Counts.
        wrong: What was wrong, one sentence each.
        seconds: For following alone, encoding included.
    """

    name: str
    scores: Scores
    wrong: tuple[str, ...]
    seconds: float


def run_patients(
    data: str,
    out: Path,
    matcher: Matcher,
    *,
    patients: int = 20,
    times: int = 3,
    spacing_mm: float = 2.0,
    on_progress: Progress | None = None,
) -> list[PatientResult]:
    """Make patients, follow their lesions, compare with the truth; what is done already is not done again.

    Args:
        data: `longitudinal`, or `longitudinal:SCAN`.
        out: Folder of the run: a JSON file a patient, and `scores.json`.
        matcher: The engine.
        patients: Number of patients.
        times: Number of scans of each patient.
        spacing_mm: Voxel size of drawn patients.
        on_progress: Called as work goes on.

    Raises:
        OptionsError: if `data` is neither.
        MissingFileError: if the scan is not there.
    """
    make, origin = _maker(data, times=times, spacing_mm=spacing_mm)
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for number in range(patients):
        seed = FIRST_SEED + number
        settings = {
            **origin,
            "seed": seed,
            "times": times,
            "model": matcher.spec.name,
            "weights": matcher.weights_hashes,
            "options": matcher.options.describe(),
            "code": _code_digest(),
        }
        path = out / f"patient-{seed}.json"
        result = _known(path, settings)
        if result is None:
            if on_progress is not None:
                on_progress(f"patient {number + 1} of {patients}", number / patients)
            result = _one(make(seed), matcher, out)
            write_json({"settings": settings, **_content(result)}, path)
        results.append(result)
    write_json(summary(results), out / "scores.json")
    return results


def summary(results: Sequence[PatientResult]) -> dict[str, Any]:
    """Scores over all patients, and what was wrong, ready for JSON."""
    total = sum((result.scores for result in results), Scores())
    return {
        "patients": len(results),
        **total.as_dict(),
        "seconds": [round(result.seconds, 1) for result in results],
        "wrong": [sentence for result in results for sentence in result.wrong],
    }


def _one(patient: LongitudinalPatient, matcher: Matcher, out: Path) -> PatientResult:
    points = [
        TimePoint(f"T{k}", scan, date, lesions=mask)
        for k, (scan, date, mask) in enumerate(zip(patient.scans, patient.dates, patient.masks, strict=True))
    ]
    work = out / "work"
    work.mkdir(exist_ok=True)
    started = time.perf_counter()
    found = track(points, work / patient.name, matcher=matcher, subject=patient.name, report=False)
    seconds = time.perf_counter() - started
    scores, wrong = score(patient, found)
    return PatientResult(patient.name, scores, tuple(wrong), seconds)


def _maker(data: str, *, times: int, spacing_mm: float) -> tuple[Callable[[int], LongitudinalPatient], dict[str, Any]]:
    kind, colon, rest = data.partition(":")
    if kind != NAME or (colon and not rest):
        raise OptionsError(f"{data!r} holds no patients with lesions; give {NAME} or {NAME}:SCAN")
    if not colon:
        return (lambda seed: drawn_patient(seed, times=times, spacing_mm=spacing_mm)), {"spacing_mm": spacing_mm}
    path = Path(rest)
    if not path.exists():
        raise MissingFileError(f"there is no {path}")
    from meddift.io import read_volume

    volume = read_volume(path)
    name = path.name.split(".")[0]
    return (lambda seed: patient_of_scan(volume, seed, times=times, name=name)), {"scan": volume.digest()}


@cache
def _code_digest() -> str:
    """sha256 of the code that follows lesions and draws patients: results of other code are made anew."""
    digest = hashlib.sha256()
    for package in (meddift.tracking, meddift_lab.longitudinal):
        for path in sorted(Path(package.__path__[0]).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _content(result: PatientResult) -> dict[str, Any]:
    return {"name": result.name, "scores": asdict(result.scores), "wrong": result.wrong, "seconds": result.seconds}


def _known(path: Path, settings: dict[str, Any]) -> PatientResult | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["settings"] != settings:
            return None
        return PatientResult(
            content["name"], Scores(**content["scores"]), tuple(content["wrong"]), float(content["seconds"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
