"""The supported data sets, how to obtain them, and their terms of use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        url: Address of the file.
        name: File name under which it is stored.
        sha256: Expected hash, 64 hexadecimal digits; None if it is not known: then the hash of the first download
            is recorded and checked the next time.
    """

    url: str
    name: str
    sha256: str | None = None


@dataclass(frozen=True)
class DataSet:
    """Description of a data set.

    Attributes:
        name: Name for `--data`.
        title: Title for display.
        points: Kinds and numbers of points.
        licence: Terms of use.
        source: Address of the web page.
        usage: Value of `--data`, with placeholders.
        archives: Files that `datasets fetch` downloads; empty if registration is required or no file is needed.
    """

    name: str
    title: str
    points: str
    licence: str
    source: str
    usage: str
    archives: tuple[Archive, ...] = ()


DATA_SETS: tuple[DataSet, ...] = (
    DataSet(
        name="phantom-breathing",
        title="10 drawn chests, breathing of 20 to 40 mm, table shift of 35 mm",
        points="100 exact",
        licence="drawn by meddift, no terms",
        source="",
        usage="phantom-breathing",
    ),
    DataSet(
        name="deformed",
        title="4 deformed copies of a chest CT of yours, breathing of 10 to 40 mm",
        points="60 on vessels, 60 anywhere in the body, exact",
        licence="that of your scan",
        source="",
        usage="deformed:SCAN.nii.gz",
    ),
    DataSet(
        name="phantom-sliding",
        title="4 drawn chests whose lungs slide along the wall by 10 to 30 mm, breathing, table shift",
        points="100 exact",
        licence="drawn by meddift, no terms",
        source="",
        usage="phantom-sliding",
    ),
    DataSet(
        name="deformed-sliding",
        title="4 copies of a chest CT of yours whose lungs slide along the wall by 10 to 30 mm",
        points="60 on vessels, 60 anywhere in the body, exact",
        licence="that of your scan",
        source="",
        usage="deformed-sliding:SCAN.nii.gz",
    ),
    DataSet(
        name="deformed-mr",
        title="3 moved and deformed copies of an MR scan of yours, or of another contrast of the same study",
        points="60 anywhere in the body, exact",
        licence="that of your scans",
        source="",
        usage="deformed-mr:SCAN.nii.gz[,OTHER.nii.gz]",
    ),
    DataSet(
        name="deformed-abdomen",
        title="3 MR-like copies of an abdominal CT of yours, breathing of 10 to 30 mm",
        points="60 anywhere in the body, exact",
        licence="that of your scan",
        source="",
        usage="deformed-abdomen:SCAN.nii.gz",
    ),
    DataSet(
        name="pairs",
        title="any pairs of scans with points of yours",
        points="yours",
        licence="yours",
        source="",
        usage="pairs:FILE.csv",
    ),
    DataSet(
        name="lungct",
        title="Learn2Reg LungCT: 20 training and 10 test pairs, exhale fixed, inhale moving",
        points="manual landmarks (cases 1 to 3), automatic keypoints",
        licence="CC BY 4.0",
        source="https://zenodo.org/records/3835682",
        usage="learn2reg:FOLDER",
        # The archive of the challenge itself; the one on Zenodo has another layout.
        archives=(Archive("https://cloud.imi.uni-luebeck.de/s/o7LyCbJCie8fQ3B/download", "LungCT.zip"),),
    ),
    DataSet(
        name="nlst",
        title="Learn2Reg NLST: low-dose chest CT, baseline and follow-up",
        points="automatic keypoints",
        licence="CC BY 4.0 (NLST), see the page",
        source="https://learn2reg.grand-challenge.org/Datasets/",
        usage="learn2reg:FOLDER",
    ),
    DataSet(
        name="dirlab-4dct",
        title="DIR-Lab 4DCT: 10 pairs, end inhale fixed, end exhale moving",
        points="300 manual landmarks",
        licence="on request from DIR-Lab",
        source="https://med.emory.edu/departments/radiation-oncology/research-laboratories/"
        "deformable-image-registration/index.html",
        usage="dirlab-4dct:FOLDER",
    ),
    DataSet(
        name="dirlab-copd",
        title="DIR-Lab COPDgene: 10 pairs, inhale fixed, exhale moving",
        points="300 manual landmarks",
        licence="on request from DIR-Lab",
        source="https://med.emory.edu/departments/radiation-oncology/research-laboratories/"
        "deformable-image-registration/index.html",
        usage="dirlab-copd:FOLDER",
    ),
)
