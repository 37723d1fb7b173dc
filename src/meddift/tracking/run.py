"""`track`: following the lesions of one patient over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meddift.errors import MeddiftError, OptionsError
from meddift.system.atomic import write_text
from meddift.system.folders import check_folder
from meddift.system.progress import Progress, silent
from meddift.tracking.candidates import Candidates, with_kinds
from meddift.tracking.engine import MatchedCarrier
from meddift.tracking.fields import PatientFields
from meddift.tracking.follow import follow
from meddift.tracking.kept import FOLDER, Kept
from meddift.tracking.loading import Encoded, check_files, read_lesions, read_scan
from meddift.tracking.observations import Decision
from meddift.tracking.outputs import is_follow_up, write_outputs
from meddift.tracking.result import FollowUp, SeenTimePoint
from meddift.tracking.tables import Reviewed, read_review, read_targets
from meddift.tracking.timepoints import TimePoint, in_order, read_time_points
from meddift.volume import Volume

if TYPE_CHECKING:
    from meddift.geometry import Transform
    from meddift.pipeline import Matcher
    from meddift.pipeline.known_field import KnownField
    from meddift.pipeline.pair import Pair

#: Called with the name of a stage in words and the share of the whole work that is done, 0 to 1.


def track(
    time_points: Path | str | Sequence[TimePoint],
    out: Path | str | None = None,
    *,
    matcher: Matcher | None = None,
    subject: str = "patient",
    components: bool = False,
    minimum_mm3: float = 0.0,
    targets: Path | str | Mapping[str, tuple[str, str]] | None = None,
    review: Path | str | None = None,
    report: bool = True,
    dicom: bool = False,
    on_progress: Progress | None = None,
) -> FollowUp:
    """Follow the lesions of one patient through two or more scans.

    Args:
        time_points: Path of a table (see `read_time_points`), or time points.
        out: Folder for tables, masks, points and report; None = nothing is written. A run in the same folder is
            resumed: matches with the same scans and settings are not computed again.
        matcher: The matcher; None = one with default settings.
        subject: The patient's name in tables.
        components: Whether every connected component of a mask is a lesion in maps with several labels too.
        minimum_mm3: Volume below which lesions are left out, mm^3.
        targets: Kinds of lesions at baseline for RECIST: path of a table (see `read_targets`), or label -> (kind,
            organ).
        review: Path of an edited `lesions.tsv`: confirmed and corrected rows are kept, rejected links are not made.
        report: Whether to write `report.html`.
        dicom: Whether to write a DICOM segmentation and a measurement report for every scan that is a DICOM series
            with a mask; needs the extra `dicom`.
        on_progress: Called with the name of a stage and the fraction of the work that is done, 0 to 1.

    Returns:
        The lesions over time; `FollowUp.failures` lists scans that could not be used.

    Raises:
        OptionsError: if time points, targets or review are invalid.
        MissingFileError: if a file does not exist.
        OutputError: if results cannot be written.
        MeddiftError: if the first scan cannot be used, or the weights of the model are missing.
    """
    say = on_progress or silent
    points = read_time_points(time_points) if isinstance(time_points, Path | str) else in_order(time_points)
    check_files(points)
    names = [point.name for point in points]
    if out is not None:
        check_folder(Path(out), is_follow_up)
    said = Reviewed() if review is None else read_review(review, names)
    if dicom:
        from meddift.tracking.dicom import check_dicom

        check_dicom(points)
    chosen = read_targets(targets) if isinstance(targets, Path | str) else dict(targets or {})
    if matcher is None:
        from meddift.pipeline import Matcher

        matcher = Matcher()
    seen = _read(points, components=components, minimum_mm3=minimum_mm3, say=say)
    if seen[0].failure:
        raise OptionsError(
            f"the first time point, {names[0]}, cannot be used, and all others need it: {seen[0].failure}"
        )
    seen, kinds = _with_kinds(seen, chosen, said, str(targets))
    _check_review(said.decisions, seen, str(review))
    carrier = _carrier(points, seen, matcher, None if out is None else Path(out), say)
    course = follow([point.lesions for point in seen], carrier, names=names, decisions=said.decisions)
    found = FollowUp(
        subject=subject,
        time_points=tuple(seen),
        course=course,
        kinds=kinds,
        given=said.given or {},
        provenance=_provenance(matcher, components=components, minimum_mm3=minimum_mm3),
    )
    if out is not None:
        say("writing", 0.92)
        more: dict[Path, Callable[[Path], None]] = {}
        if report:
            from meddift.tracking.page import page_text

            more[Path(out) / "report.html"] = partial(write_text, page_text(found, lambda k: read_scan(points[k])))
        if dicom:
            from meddift.tracking.dicom import dicom_writers

            more |= dicom_writers(found, Path(out))
        write_outputs(found, Path(out), more=more)
    say("done", 1.0)
    return found


def _read(points: Sequence[TimePoint], *, components: bool, minimum_mm3: float, say: Progress) -> list[SeenTimePoint]:
    """Read the lesions of every time point; one scan is in memory at a time."""
    seen = []
    for k, point in enumerate(points):
        say(f"reading {point.name}", 0.15 * k / len(points))
        grid, digest = None, ""
        lesions: Candidates | str
        try:
            scan = read_scan(point)
            grid, digest = scan.grid, scan.digest()
            lesions = read_lesions(point, scan, components=components, minimum_mm3=minimum_mm3)
        except MeddiftError as error:
            lesions = str(error)
        where = "in memory" if isinstance(point.scan, Volume) else str(point.scan)
        seen.append(SeenTimePoint(point.name, point.date, point.day, point.phase, where, lesions, grid, digest))
    return seen


def _with_kinds(
    seen: Sequence[SeenTimePoint], chosen: Mapping[str, tuple[str, str]], said: Reviewed, name: str
) -> tuple[list[SeenTimePoint], dict[str, tuple[str, str]]]:
    """Assign kinds to lesions at baseline, from the table of targets or else from the reviewed table."""
    from meddift.tracking.follow import names_at_baseline

    first = seen[0].lesions
    assert isinstance(first, Candidates)
    identities = dict(zip([item.label for item in first.items], names_at_baseline(first), strict=True))
    if chosen:
        first = with_kinds(first, dict(chosen), name)
    kinds = {
        identities[item.label]: (item.kind, item.organ) for item in first.items if item.kind or item.organ
    } | dict(said.kinds or {})
    unknown = sorted(set(said.kinds or {}) - set(identities.values()))
    if unknown:
        raise OptionsError(f"the reviewed table names lesion {', '.join(unknown)} at baseline, which is not there")
    return [replace(seen[0], lesions=first), *seen[1:]], kinds


def _check_review(decisions: Sequence[Decision], seen: Sequence[SeenTimePoint], name: str) -> None:
    """Raise OptionsError if a review refers to labels that are not in the masks."""
    for decision in decisions:
        scan = seen[decision.timepoint].lesions
        if isinstance(scan, str) or decision.review == "proposed":
            continue
        labels = {item.label for item in scan.items}
        unknown = [label for label in decision.labels if label not in labels]
        if unknown:
            raise OptionsError(
                f"{name}: lesion {decision.lesion} at {seen[decision.timepoint].name} has the label "
                f"{', '.join(unknown)}, which is not in its mask; was the mask drawn anew?"
            )


def _carrier(
    points: Sequence[TimePoint], seen: Sequence[SeenTimePoint], matcher: Matcher, out: Path | None, say: Progress
) -> MatchedCarrier:
    encoded = Encoded(points, matcher.encode)
    done = 0

    def pair(source: int, target: int, *, prior: Transform | None, back: KnownField | None) -> Pair:
        nonlocal done
        done += 1
        # For each follow-up scan there are up to three pairs: from the first scan, from the previous one, and back.
        share = 0.15 + 0.75 * min(done / (3 * (len(points) - 1)), 1.0)
        say(f"from {points[source].name} to {points[target].name}", share)
        scans = encoded.get(source, beside=target), encoded.get(target, beside=source)
        # Refinement changes fields by less than the size of lesions.
        return matcher.pair(*scans, prior=prior, back=back, refined=False)

    def grid(k: int) -> Any:
        return seen[k].grid

    kept = None
    if out is not None:
        settings = {
            "model": matcher.spec.name,
            "weights": matcher.weights_hashes,
            "options": matcher.options.describe(),
        }
        kept = Kept(out / FOLDER, [point.digest for point in seen], settings)
    return MatchedCarrier(PatientFields(pair).between, grid, kept)


def _provenance(matcher: Matcher, **options: Any) -> dict[str, Any]:
    import importlib.metadata
    import platform

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "unknown"

    return {
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("meddift", "torch", "monai", "numpy", "SimpleITK", "nibabel")},
        },
        "model": matcher.spec.name,
        "weights_sha256": matcher.weights_hashes,
        "matcher_options": matcher.options.describe(),
        "options": options,
    }
