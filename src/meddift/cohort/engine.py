"""`PairEngine`: encodes scans, matches and registers pairs and tracks lesions inside a worker."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meddift.cohort.cases import Case
from meddift.cohort.derivative import Derivative
from meddift.cohort.flags import flags_of
from meddift.cohort.inputs import content_digest
from meddift.cohort.needs import Needs
from meddift.errors import OutputError
from meddift.features import FeatureStore
from meddift.features.code import code_digest
from meddift.pipeline import Matcher
from meddift.system.atomic import write_together
from meddift.system.folders import make_folder
from meddift.system.temporary import sweep_tree

if TYPE_CHECKING:
    from meddift.features import Pyramid
    from meddift.pipeline import EncodedScan

_LOGGER = logging.getLogger(__name__)

#: Number of encoded scans that a worker keeps in memory: two of a case, and one that the next case may share.
_HELD = 2


class _Store(FeatureStore):
    """A feature store without a size limit: the loop removes features that no case needs any more.

    It also counts how many pyramids were computed and stored.

    Args:
        folder: Folder of the stored features.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, budget_bytes=1 << 62)
        self.made = 0

    def put(self, pyramid: Pyramid) -> bool:
        """Store a feature pyramid.

        Raises:
            OutputError: if it cannot be written. The run stops, since every case would encode its scans again.
        """
        self.made += 1
        if not super().put(pyramid):
            raise OutputError(f"cannot keep features in {self.folder}: it cannot be written to, or the disk is full")
        return True


class PairEngine:
    """Encodes scans, matches and registers pairs and tracks lesions; implements `worker.Engine`.

    Args:
        settings: Dictionary, ready for JSON, with "matcher" (keywords of `Matcher`), "store" and "out" (folders),
            "files" (see `plan.Files`), "points_space" (frame of points files) and "threads".
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._store = _Store(Path(settings["store"]))
        self._matcher = self._make_matcher()
        self._held: dict[str, EncodedScan] = {}

    def _make_matcher(self, **more: Any) -> Matcher:
        told = {**self._settings["matcher"], **more}
        return Matcher(**told, store=self._store, threads=self._settings["threads"], on_progress=_log)

    def versions(self) -> Mapping[str, str]:
        """Digests of code and weights, which must be equal in all workers."""
        parts = ("geometry", "models", "io", "features", "matching", "registration", "pipeline", "tracking", "cohort")
        return {"code": code_digest(*parts), "weights": "+".join(self._matcher.weights_hashes.values())}

    def needs(self, cases: Sequence[Case]) -> Needs:
        """Estimate memory and time for some cases."""
        from meddift.cohort.estimate import estimate

        return estimate(cases, self._matcher)

    def encode(self, scan: str) -> dict[str, Any]:
        """Encode the scan at a path and store its features."""
        before = self._store.made
        encoded = self._scan(scan)
        key = encoded.settings.key(encoded.digest, modality=encoded.volume.modality)
        return {"made": self._store.made > before, "sha256": content_digest(scan), "store_key": key}

    def run(self, case: Case) -> dict[str, Any]:
        """Process a case and write its files."""
        place = Derivative(case, Path(self._settings["out"]))
        make_folder(place.folder)
        sweep_tree(place.lesions if case.time_points else place.folder)
        found = self._track(case, place) if case.time_points else self._pair(case, place)
        found["row"]["flags"] = " ".join(flags_of(found["row"]))
        found["row"].pop("nothing_in_common", None)
        return {**found, "peak_bytes": _peak()}

    def _scan(self, path: str) -> EncodedScan:
        """A scan with its features; the least recently used scan is dropped from memory."""
        scan = self._held.pop(path, None)
        while len(self._held) >= _HELD:
            del self._held[next(iter(self._held))]
        self._held[path] = self._matcher.encode(path) if scan is None else scan
        return self._held[path]

    def _pair(self, case: Case, place: Derivative) -> dict[str, Any]:
        """Match and register the two scans of a case."""
        from meddift.cohort.pair_files import PairResult
        from meddift.pipeline.points_files import read_points_on, read_truth

        fixed, moving = (self._scan(case.files[role]) for role in ("fixed", "moving"))
        matcher = self._matcher
        if "prior" in case.files:
            matcher = self._make_matcher(prior=case.files["prior"])
        pair = matcher.pair(fixed, moving)
        space = self._settings["points_space"]
        points = truth = matches = registration = None
        if "points" in case.files:
            points = read_points_on(Path(case.files["points"]), space, fixed.grid, "fixed")
            truth_file = case.files.get("truth")
            truth = None if truth_file is None else read_truth(Path(truth_file), space, moving.volume, points)
        if "register" in case.steps:
            fixed_mask, moving_mask = case.files.get("fixed_mask"), case.files.get("moving_mask")
            registration = pair.register(fixed_mask=fixed_mask, moving_mask=moving_mask)
        if "match" in case.steps and points is not None:
            matches = pair.match(points)
        elif registration is not None and points is not None:
            matches = registration.apply(points)
        result = PairResult(case, pair, matches, truth, registration)
        writers = result.writers(place, self._settings["files"])
        write_together(writers)
        return {
            "row": result.row(),
            "outputs": [place.relative(path) for path in writers],
            "timing": {stage: float(seconds) for stage, seconds in pair.timing.items()},
            "provenance": pair.settings.provenance(),
        }

    def _track(self, case: Case, place: Derivative) -> dict[str, Any]:
        """Track the lesions of a patient."""
        from meddift.cohort.lesion_files import lesion_row, time_points, write_lesion_table
        from meddift.tracking import track

        self._held.clear()  # lesion tracking keeps scans of its own in memory
        found = track(
            time_points(case), place.lesions, matcher=self._matcher, subject=case.labels.subject, on_progress=_log
        )
        outputs = write_lesion_table(found, place)
        return {
            "row": lesion_row(found),
            "outputs": [place.relative(path) for path in outputs],
            "timing": {},
            "provenance": found.provenance,
        }


def make(settings: Mapping[str, Any]) -> PairEngine:
    """Create the engine of a worker; see `PairEngine` for the settings."""
    return PairEngine(settings)


def _log(stage: str, fraction: float) -> None:
    _LOGGER.info("%3.0f %% %s", 100 * fraction, stage)


def _peak() -> int | None:
    from meddift.system.memory import peak_memory_bytes

    return peak_memory_bytes()
