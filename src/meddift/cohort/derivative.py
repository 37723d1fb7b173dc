"""Names of files in a BIDS derivative."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from meddift.cohort.cases import Case


@dataclass(frozen=True)
class Derivative:
    """Where the files of a case go.

    A transform `from-A_to-B_mode-image` takes the image of A onto the voxels of B, as fMRIPrep names them. Ours maps
    points of the fixed scan to the moving one, which is what pulls the moving image onto the fixed voxels: from moving
    to fixed.

    Attributes:
        case: The case.
        out: Folder of the derivative.
    """

    case: Case
    out: Path

    @property
    def folder(self) -> Path:
        """Folder of its files."""
        return self.out / self.case.labels.place

    @property
    def lesions(self) -> Path:
        """Folder of a follow-up of lesions."""
        return self.out / f"sub-{self.case.labels.subject}" / "lesions"

    @property
    def picture(self) -> Path:
        """The picture for the report."""
        return self.out / "cases" / self.case.name / "picture.png"

    def transform(self, *, inverse: bool = False, suffix: str = ".h5") -> Path:
        """The transform, or what is known about it (`.json`)."""
        labels = self.case.labels
        ends = (labels.fixed, labels.moving) if inverse else (labels.moving, labels.fixed)
        return self.folder / f"{labels.stem}_from-{ends[0]}_to-{ends[1]}_mode-image_xfm{suffix}"

    def points(self, suffix: str = ".tsv") -> Path:
        """The points that were found."""
        return self.folder / f"{self.case.labels.stem}_desc-matches_points{suffix}"

    def image(self, what: str, suffix: str = ".nii.gz") -> Path:
        """An image on the voxels of the fixed scan: "warped", "jacobian" or "labels"."""
        labels = self.case.labels
        kind = "dseg" if what == "labels" else labels.suffix
        return self.folder / f"{labels.stem}_space-{labels.fixed}_desc-{what}_{kind}{suffix}"

    def lesion_table(self, suffix: str = ".tsv") -> Path:
        """The table of lesions."""
        subject = f"sub-{self.case.labels.subject}"
        return self.out / subject / f"{subject}_desc-lesions_table{suffix}"

    def relative(self, path: Path) -> str:
        """A path as `result.json` names it."""
        return path.relative_to(self.out).as_posix()
