"""What `meddift register` hands out: transforms, warped images, maps, points, JSON and a summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meddift.cli.outputs import IMAGES, PICTURES, Outputs, check_suffix
from meddift.cli.points_files import PointsTarget
from meddift.errors import OptionsError

if TYPE_CHECKING:
    from meddift.geometry import Transform
    from meddift.matching import Matches
    from meddift.pipeline import Pair
    from meddift.pipeline.accuracy import Accuracy
    from meddift.points import Points
    from meddift.registration import Registration
    from meddift.volume import Volume

#: A displacement field is written as an image.
_TRANSFORMS = (".h5", ".hdf5", ".tfm", *IMAGES)


@dataclass(frozen=True)
class Wanted:
    """The files that were asked for; None where one was not."""

    out: Path | None
    inverse: Path | None
    affine: Path | None
    learn2reg: Path | None
    points: PointsTarget | None
    warped: Path | None
    labels: Path | None
    jacobian: Path | None
    uncertainty: Path | None
    picture: Path | None

    def paths(self) -> list[Path]:
        """Those that were asked for."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [value.path if isinstance(value, PointsTarget) else value for value in values if value is not None]

    def sidecars(self) -> list[Path]:
        """What is written beside them."""
        from meddift.io.transform_sidecar import sidecar_path

        return [sidecar_path(path) for path in (self.out, self.inverse, self.affine) if path is not None]

    def check(self, stages: tuple[str, ...]) -> None:
        """Raise OptionsError for names that no writer will take, before minutes of work are spent."""
        rules: list[tuple[Path | None, tuple[str, ...], str]] = [
            (self.out, _TRANSFORMS, "transforms"),
            (self.inverse, _TRANSFORMS, "transforms"),
            (self.affine, (".tfm", ".h5", ".hdf5"), "affine transforms"),
            (self.learn2reg, (".nii.gz", ".nii"), "displacements of Learn2Reg"),
            (self.picture, PICTURES, "pictures"),
        ]
        rules += [(path, IMAGES, "images") for path in (self.warped, self.labels, self.jacobian, self.uncertainty)]
        for path, suffixes, what in rules:
            check_suffix(path, suffixes, what)
        linear = stages in (("affine",), ("rigid",))
        for path in (self.out, self.inverse):
            if path is None:
                continue
            name = path.name.lower()
            if name.endswith(".tfm") and not linear:
                raise OptionsError(f"{path}: a displacement field as text would be huge; write .h5 or .nii.gz")
            if name.endswith(IMAGES) and linear:
                raise OptionsError(f"{path}: an affine or rigid transform goes to .tfm or .h5, not to an image")


@dataclass(frozen=True, eq=False)
class Carried:
    """A registration and what was carried through it."""

    pair: Pair
    registration: Registration
    matches: Matches | None
    accuracy: Accuracy | None
    labels: Volume | None

    @classmethod
    def of(
        cls, pair: Pair, registration: Registration, points: Points | None, truth: Points | None, labels: Volume | None
    ) -> Carried:
        """Carry points, and compare them with the truth where it is known."""
        from meddift.pipeline.accuracy import measure_accuracy
        from meddift.registration.carrying import carry_points

        matches = accuracy = None
        if points is not None:
            matches = carry_points(registration, points, pair.fixed.grid, pair.moving.grid)
            if truth is not None:
                accuracy = measure_accuracy(matches, truth, pair.moving.grid)
        return cls(pair, registration, matches, accuracy, labels)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; coordinates in world RAS mm."""
        from meddift.system.memory import peak_memory_bytes

        content = self.registration.summary()
        content["peak_memory_bytes"] = peak_memory_bytes()
        content["provenance"] = dict(self.registration.provenance)
        if self.matches is not None:
            content["points"] = self.matches.rows()
        if self.accuracy is not None:
            content |= self.accuracy.as_dict()
        return content

    def show(self, *, to_stdout: bool) -> None:
        """The summary."""
        from meddift.cli.match_report import accuracy_lines, counted, evidence_lines, intensity_lines
        from meddift.cli.terminal import show

        found = self.registration
        residual = found.inverse_residual
        seconds = sum(found.timing.values())
        lines = [
            f"registered ({', '.join(found.stages)}) in {seconds:.0f} s, of which encoding "
            f"{found.timing.get('encode', 0.0):.0f} s",
            f"{100 * found.supported_share:.0f} % of the body of the fixed scan has a counterpart in the moving scan",
            f"folding {100 * found.folding:.3f} % of the body, SDlogJ {found.sd_log_jacobian:.3f}; {residual}",
        ]
        if self.matches is not None:
            verdicts = self.matches.verdict
            lines.append(f"{len(verdicts)} points: {counted(verdicts)}")
        lines += intensity_lines(self.pair)
        lines += evidence_lines(self.pair)
        if self.accuracy is not None:
            lines += accuracy_lines(self.accuracy)
        show(*lines, to_stdout=to_stdout)


def write(carried: Carried, wanted: Wanted, outputs: Outputs) -> list[str]:
    """Write the files that were asked for: all of them, or none; the picture may be missing.

    Returns:
        One sentence for each file that could not be written while the rest was.
    """
    from meddift.io import write_volume
    from meddift.io.transform_sidecar import sidecar_path, transform_sidecar, write_learn2reg, write_sidecar
    from meddift.registration import warp_labels, warp_volume

    found, fixed, moving = carried.registration, carried.pair.fixed.volume, carried.pair.moving.volume
    required = outputs.required

    def plan(path: Path | None, writer: Callable[[Path], None]) -> None:
        if path is not None:
            required[path] = writer

    for path, transform, inverse in (
        (wanted.out, found.transform, False),
        (wanted.inverse, found.inverse, True),
        (wanted.affine, found.affine, False),
    ):
        if path is None:
            continue
        part = "affine part" if transform is found.affine and found.transform is not found.affine else "whole"
        more = {"registration": found.summary(), "part": part, "provenance": dict(found.provenance)}
        content = transform_sidecar(fixed, moving, inverse=inverse, more=more)
        plan(path, partial(_write_described, transform, content, path.name))
        plan(sidecar_path(path), partial(write_sidecar, content))
    plan(wanted.learn2reg, lambda place: write_learn2reg(found.transform, fixed.grid, moving.grid, place))
    plan(wanted.warped, lambda place: write_volume(warp_volume(moving, found.transform, fixed.grid), place))
    if carried.labels is not None:
        labels = carried.labels
        plan(wanted.labels, lambda place: write_volume(warp_labels(labels, found.transform, fixed.grid), place))
    plan(wanted.jacobian, lambda place: write_volume(found.determinant_on(fixed.grid), place))
    plan(wanted.uncertainty, lambda place: write_volume(found.uncertainty_on(fixed.grid), place))
    missed = []
    if wanted.points is not None and carried.matches is not None:
        from meddift.cli.match_report import plan_points

        missed += plan_points(carried.matches, wanted.points, moving.grid, outputs)
    if wanted.picture is not None:
        from meddift.pipeline.picture import draw_registration, save_picture

        outputs.optional[wanted.picture] = lambda place: save_picture(draw_registration(fixed, moving, found), place)
    return missed + outputs.commit()


def _write_described(transform: Transform, content: dict[str, Any], name: str, place: Path) -> None:
    """Write a transform, and tell its sidecar, which is written after it, what file that is."""
    from meddift.io import write_transform
    from meddift.io.transform_sidecar import file_entry

    write_transform(transform, place)
    content["file"] = file_entry(place, name=name)
