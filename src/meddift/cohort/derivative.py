"""Paths of the files of a case in a BIDS derivative."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from meddift.cohort.cases import Case


@dataclass(frozen=True)
class Derivative:
    """Builds the paths of the files of a case.

    A transform `from-A_to-B_mode-image` resamples the image of A onto the grid of B, as in fMRIPrep. The transforms
    of meddift map points of the fixed scan to the moving scan, which resamples the moving image onto the fixed grid;
    they are therefore named from moving to fixed.

    Attributes:
        case: The case.
        out: Root folder of the derivative.
    """

    case: Case
    out: Path

    @property
    def folder(self) -> Path:
        """Folder of the files of this case."""
        return self.out / self.case.labels.place

    @property
    def lesions(self) -> Path:
        """Folder of the results of lesion tracking."""
        return self.out / f"sub-{self.case.labels.subject}" / "lesions"

    @property
    def picture(self) -> Path:
        """PNG for the report."""
        return self.out / "cases" / self.case.name / "picture.png"

    def transform(self, *, inverse: bool = False, suffix: str = ".h5") -> Path:
        """The transform (`.h5`), or its description (`.json`); `inverse` for moving to fixed points."""
        labels = self.case.labels
        ends = (labels.fixed, labels.moving) if inverse else (labels.moving, labels.fixed)
        return self.folder / f"{labels.stem}_from-{ends[0]}_to-{ends[1]}_mode-image_xfm{suffix}"

    def points(self, suffix: str = ".tsv") -> Path:
        """Table of the matched points."""
        return self.folder / f"{self.case.labels.stem}_desc-matches_points{suffix}"

    def image(self, what: str, suffix: str = ".nii.gz") -> Path:
        """An image on the grid of the fixed scan; `what` is "warped", "jacobian" or "labels"."""
        labels = self.case.labels
        kind = "dseg" if what == "labels" else labels.suffix
        return self.folder / f"{labels.stem}_space-{labels.fixed}_desc-{what}_{kind}{suffix}"

    def lesion_table(self, suffix: str = ".tsv") -> Path:
        """Table of the lesions at all time points."""
        subject = f"sub-{self.case.labels.subject}"
        return self.out / subject / f"{subject}_desc-lesions_table{suffix}"

    def relative(self, path: Path) -> str:
        """A path relative to the derivative, with forward slashes, as in `result.json`."""
        return path.relative_to(self.out).as_posix()
