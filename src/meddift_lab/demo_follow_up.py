"""The demo of lesion tracking: a simulated patient with three scans, tracked and compared with the ground truth."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meddift.errors import OutputError
from meddift.system.atomic import write_text
from meddift.system.progress import Progress, silent
from meddift_lab.longitudinal import LongitudinalPatient, Scores, drawn_patient, patient_of_scan, score

if TYPE_CHECKING:
    from meddift.pipeline import Matcher
    from meddift.tracking import FollowUp
    from meddift.volume import Volume


#: Field of view of the drawn chest along R, A and S, mm; smaller than a whole chest to keep the demo short.
SIZE_MM = (340.0, 260.0, 230.0)
#: Names of the time points.
NAMES = ("baseline", "first", "second")
#: Names of the files of the patient: table of time points, target lesions, ground truth, folder of results.
TABLE, TARGETS, TRUTH, RESULTS = "patient.csv", "targets.csv", "truth.tsv", "results"


@dataclass(frozen=True, eq=False)
class FollowUpDemo:
    """Results of the demo.

    Attributes:
        patient: The scans and the ground truth.
        found: The tracking result.
        scores: Scores of the result against the ground truth.
        wrong: One sentence for each error.
        seconds: Duration of the whole demo, s.
        files: Path -> description of the file.
    """

    patient: LongitudinalPatient
    found: FollowUp
    scores: Scores
    wrong: tuple[str, ...]
    seconds: float
    files: dict[Path, str]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "patient": self.patient.name,
            **self.scores.as_dict(),
            "wrong": list(self.wrong),
            "seconds": self.seconds,
            "files": {str(path): what for path, what in self.files.items()},
        }


def run_follow_up_demo(
    matcher: Matcher, out: Path, *, seed: int = 1, scan: Volume | None = None, on_progress: Progress | None = None
) -> FollowUpDemo:
    """Simulate a patient whose lesions grow, shrink, disappear, appear, split, merge or leave the view; track them.

    Args:
        matcher: The matcher with its model.
        out: Output folder for scans, masks, tables, ground truth and results; created if it does not exist.
        seed: Seed of the patient; equal seeds give equal patients.
        scan: Chest CT in HU into which lesions are drawn; None = a drawn chest.
        on_progress: Called with the current stage and the share of the work that is done, 0 to 1.

    Returns:
        The patient, the result and its scores.

    Raises:
        OutputError: if a file cannot be written.
        MeddiftError: if the model is not installed.
    """
    from meddift.io import write_volume
    from meddift.tracking.run import track

    say = on_progress or silent
    started = time.perf_counter()
    say("drawing a patient at three dates", 0.02)
    patient = drawn_patient(seed, size_mm=SIZE_MM, more=0) if scan is None else patient_of_scan(scan, seed, more=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {out}: {error.strerror or error}") from error
    files: dict[Path, str] = {}
    lines = ["timepoint,date,scan,lesions"]
    for name, day, volume, mask in zip(NAMES, patient.dates, patient.scans, patient.masks, strict=True):
        write_volume(volume, out / f"{name}.nii.gz")
        write_volume(mask, out / f"{name}-lesions.nii.gz")
        lines.append(f"{name},{day:%Y-%m-%d},{name}.nii.gz,{name}-lesions.nii.gz")
        files[out / f"{name}.nii.gz"] = f"the scan of {day:%d %b %Y}; its lesions beside it"
    write_text("\n".join(lines) + "\n", out / TABLE)
    write_text(_targets(patient), out / TARGETS)
    write_text(_truth(patient), out / TRUTH)
    files[out / TABLE] = "the time points, for meddift track"
    files[out / TARGETS] = "which lesions count for RECIST"
    files[out / TRUTH] = "what really became of each lesion"

    def later(stage: str, share: float) -> None:
        say(stage, 0.2 + 0.8 * share)

    found = track(
        out / TABLE, out / RESULTS, matcher=matcher, subject="drawn", targets=out / TARGETS, on_progress=later
    )
    files[out / RESULTS / "report.html"] = "the report"
    files[out / RESULTS / "lesions.tsv"] = "the table"
    scores, wrong = score(patient, found)
    return FollowUpDemo(patient, found, scores, tuple(wrong), time.perf_counter() - started, files)


def _targets(patient: LongitudinalPatient) -> str:
    """Table of the target lesions, the first five of the first scan."""
    labels = [own[0][0] for own in patient.labels if own[0]]
    return "\n".join(["label,kind,organ", *(f"{label},target," for label in labels[:5])]) + "\n"


def _truth(patient: LongitudinalPatient) -> str:
    """Table of the true labels and states of each lesion at every time point."""
    rows = ["lesion\tfate\ttimepoint\tlabel\tstate\tx_ras\ty_ras\tz_ras"]
    for i, own in enumerate(patient.labels):
        for k, labels in enumerate(own):
            state = patient.states.get((i, k))
            if state is not None:
                place = "\t".join(f"{v:.2f}" for v in patient.centers[i, k])
                rows.append(f"{i}\t{patient.fates[i]}\t{NAMES[k]}\t{'+'.join(map(str, labels))}\t{state}\t{place}")
    return "\n".join(rows) + "\n"
