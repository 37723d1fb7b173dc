"""`meddift track` from files to files, without a network: the hand-made level alone."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from command_scans import affine, textured, write_nifti

Run = Any

SIZE, SPACING = 44, 3.0
STEP = np.array([1, -1, 2])  # voxels from one scan to the next
#: Lesion -> centre in voxels of the first scan, and its radius in mm in each scan; 0 where it is not there.
LESIONS = {
    1: ((12, 22, 12), (6.0, 7.5, 9.0)),  # grows
    2: ((28, 22, 12), (9.0, 9.0, 6.5)),  # shrinks
    3: ((20, 32, 20), (7.0, 0.0, 0.0)),  # goes
    4: ((20, 12, 18), (0.0, 7.0, 7.0)),  # comes
}
#: Lesion -> label in each scan.
LABELS = {1: (1, 4, 2), 2: (2, 1, 5), 3: (3, 0, 0), 4: (0, 2, 1)}


def mask(k: int) -> np.ndarray:
    data = np.zeros((SIZE,) * 3, np.uint8)
    places = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"), -1)
    for number, (center, radii) in LESIONS.items():
        away = np.linalg.norm((places - np.asarray(center) - k * STEP) * SPACING, axis=-1)
        if radii[k]:
            data[away <= radii[k]] = LABELS[number][k]
    return data


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    """Three scans with masks, and a table in another order than that of the dates."""
    scan = textured((SIZE,) * 3)
    rows = ["timepoint,date,scan,lesions"]
    for k, (name, day) in enumerate((("base", "2024-01-02"), ("mid", "2024-03-26"), ("last", "2024-06-18"))):
        write_nifti(tmp_path / f"{name}.nii.gz", np.roll(scan, k * STEP, (0, 1, 2)))
        write_nifti(tmp_path / f"{name}-mask.nii.gz", mask(k))
        rows.insert(1, f"{name},{day},{name}.nii.gz,{name}-mask.nii.gz")
    (tmp_path / "patient.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "targets.csv").write_text("label,kind,organ\n1,target,liver\n2,target,lung\n3,non_target,liver\n")
    return tmp_path


ENGINE = ["--levels", "mind", "--prior", "identity", "--search-radius", "18", "--no-store"]


def arguments(patient: Path, *more: str) -> list[str]:
    return ["track", str(patient / "patient.csv"), "--out", str(patient / "out"), *ENGINE, *more]


def rows(path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# Calculated from the masks given, for research")
    return list(csv.DictReader(lines[1:], delimiter="\t"))


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_from_scans_to_tables_masks_points_and_page(patient: Path, run: Run) -> None:
    outcome = run(arguments(patient, "--targets", str(patient / "targets.csv"), "--subject", "P7"))
    assert outcome.code == 0, outcome.stderr
    out = patient / "out"
    table = {(row["lesion_id"], row["timepoint"]): row for row in rows(out / "lesions.tsv")}
    states = {key: row["state"] for key, row in table.items()}
    assert states == {
        ("1", "base"): "baseline", ("2", "base"): "baseline", ("3", "base"): "baseline",
        ("1", "mid"): "matched", ("2", "mid"): "matched", ("3", "mid"): "disappeared", ("4", "mid"): "new",
        ("1", "last"): "matched", ("2", "last"): "matched", ("3", "last"): "disappeared", ("4", "last"): "matched",
    }  # fmt: skip
    for number, labels in LABELS.items():
        for label, name in zip(labels, ("base", "mid", "last"), strict=True):
            if label:
                assert table[str(number), name]["label"] == str(label)
    assert table["1", "last"]["link_from"] == "base:1 mid:4"
    assert table["1", "mid"]["date"] == "2024-03-26"
    # Places are those of the masks, in RAS mm.
    for (number, name), row in table.items():
        k = ("base", "mid", "last").index(name)
        true = affine()[:3, :3] @ (np.asarray(LESIONS[int(number)][0]) + k * STEP) + affine()[:3, 3]
        found = [float(row[column]) for column in ("x_ras", "y_ras", "z_ras")]
        assert np.linalg.norm(found - true) < 2.0
    # Sizes are those of balls, to within half the diagonal of a pixel.
    for number, (_, radii) in LESIONS.items():
        for radius, name in zip(radii, ("base", "mid", "last"), strict=True):
            if radius:
                assert float(table[str(number), name]["long_mm"]) == pytest.approx(2 * radius, abs=2.2)
    assert table["3", "mid"]["long_mm"] == ""

    summary = rows(out / "summary.tsv")
    sums = [sum(float(table[n, name]["long_mm"]) for n in ("1", "2")) for name in ("base", "mid", "last")]
    assert [float(row["sum_mm"]) for row in summary] == pytest.approx(sums, abs=0.11)
    # A new lesion is progression, whatever the sum.
    assert [row["category"] for row in summary] == ["", "PD", "PD"]
    assert "a new lesion" in summary[1]["reason"]

    masks = [np.asarray(nibabel.load(out / f"{name}_lesions.nii.gz").dataobj) for name in ("base", "mid", "last")]
    for k, relabelled in enumerate(masks):
        for number, labels in LABELS.items():
            assert np.array_equal(relabelled == number, (mask(k) == labels[k]) & (labels[k] > 0))

    content = json.loads((out / "lesions.json").read_text())
    assert content["mapping"]["base>last"] == {"1": ["2"], "2": ["5"], "3": []}
    assert content["mapping"]["mid>last"] == {"4": ["2"], "1": ["5"], "2": ["1"]}
    assert len(content["time_points"][0]["scan_sha256"]) == 64
    markups = json.loads((out / "mid.mrk.json").read_text())["markups"][0]
    assert [point["label"] for point in markups["controlPoints"]] == [f"lesion {n}" for n in "1234"]
    assert markups["controlPoints"][2]["description"].startswith("disappeared")

    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert all(address.startswith(("data:image/png", "#")) for address in page.addresses)
    assert sum(address.startswith("data:") for address in page.addresses) == len(table)
    assert "Lesions over time: P7" in page.words
    assert "disappeared" in outcome.stdout + outcome.stderr


def test_a_second_run_asks_the_engine_nothing(patient: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(arguments(patient, "--no-report")).code == 0
    first = (patient / "out" / "lesions.tsv").read_bytes()
    from meddift.pipeline import Matcher

    def asked(*_: Any) -> None:
        raise AssertionError("the engine was asked again")

    monkeypatch.setattr(Matcher, "pair", asked)
    outcome = run(arguments(patient, "--no-report"))
    assert outcome.code == 0, outcome.stderr
    assert (patient / "out" / "lesions.tsv").read_bytes() == first
    # A damaged answer is asked for again.
    next((patient / "out" / "kept").iterdir()).write_text("{")
    assert run(arguments(patient, "--no-report")).code == 1


def test_what_a_person_says_in_the_table_of_the_results_is_kept(patient: Path, run: Run) -> None:
    arguments_ = arguments(patient, "--no-report", "--targets", str(patient / "targets.csv"))
    assert run(arguments_).code == 0
    path = patient / "out" / "lesions.tsv"
    lines = path.read_text().splitlines()
    header = lines[1].split("\t")
    edited = []
    for line in lines[2:]:
        row = dict(zip(header, line.split("\t"), strict=True))
        if (row["timepoint"], row["lesion_id"]) == ("mid", "1"):
            row |= {"label": "1", "review": "corrected"}
        if (row["timepoint"], row["lesion_id"]) == ("mid", "2"):
            row |= {"label": "4", "review": "corrected"}
        if (row["timepoint"], row["lesion_id"]) == ("last", "2"):
            row |= {"measured": "manual", "long_mm": "33.5", "short_mm": "20", "review": "confirmed"}
        edited.append("\t".join(row[name] for name in header))
    # The table itself, in the folder into which results are written: as the viewer saves it.
    path.write_text("\n".join([*lines[:2], *edited]) + "\n")
    before = path.read_bytes()
    (patient / "last.nii.gz").rename(patient / "away.nii.gz")
    assert run([*arguments(patient, "--no-report"), "--review", str(path)]).code == 1
    assert path.read_bytes() == before  # what was refused costs nobody's work
    (patient / "away.nii.gz").rename(patient / "last.nii.gz")
    outcome = run([*arguments(patient, "--no-report"), "--review", str(path)])
    assert outcome.code == 0, outcome.stderr
    table = {(row["lesion_id"], row["timepoint"]): row for row in rows(path)}
    assert (table["1", "mid"]["label"], table["2", "mid"]["label"]) == ("1", "4")
    assert table["1", "mid"]["review"] == "corrected"
    assert (table["2", "last"]["long_mm"], table["2", "last"]["measured"]) == ("33.5", "manual")
    # The choice of targets came back with the table.
    assert table["2", "base"]["kind"] == "target"
    assert float(rows(patient / "out" / "summary.tsv")[2]["sum_mm"]) == pytest.approx(
        float(table["1", "last"]["long_mm"]) + 33.5, abs=0.11
    )


def test_a_broken_scan_costs_its_own_time_point(patient: Path, run: Run) -> None:
    (patient / "mid.nii.gz").write_bytes((patient / "mid.nii.gz").read_bytes()[:3000])
    outcome = run(arguments(patient))
    assert outcome.code == 3
    assert "mid" in outcome.stderr
    table = {(row["lesion_id"], row["timepoint"]): row for row in rows(patient / "out" / "lesions.tsv")}
    assert table["1", "mid"]["state"] == "uncertain"
    assert "could not be used" in table["1", "mid"]["reason"]
    assert table["1", "last"]["label"] == "2"
    assert not (patient / "out" / "mid_lesions.nii.gz").exists()


def test_scans_and_masks_without_a_table(patient: Path, run: Run) -> None:
    scans = [str(patient / f"{name}.nii.gz") for name in ("base", "last")]
    masks = ["--lesions", str(patient / "base-mask.nii.gz"), "--lesions", "-"]
    outcome = run(["track", *scans, *masks, "--out", str(patient / "out"), *ENGINE, "--no-report", "--json"])
    assert outcome.code == 0, outcome.stderr
    found = {lesion["lesion_id"]: lesion["observations"][1] for lesion in outcome.json["lesions"]}
    assert set(found) == {"1", "2", "3"}
    assert all(row["state"] == "matched" and row["measured"] == "none" for row in found.values())
    assert all("only located" in row["reason"] for row in found.values())


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (["--date", "2024-01-01"], 2, "belong into its columns"),
        (["--review", "nowhere.tsv"], 1, "nowhere.tsv does not exist"),
        (["--targets", "nowhere.tsv"], 1, "nowhere.tsv does not exist"),
    ],
)
def test_wrong_usage(patient: Path, run: Run, change: list[str], code: int, words: str) -> None:
    outcome = run(arguments(patient, *change))
    assert outcome.code == code
    assert words in outcome.stderr
    assert not (patient / "out").exists()


def test_a_folder_that_cannot_be_written_is_said_before_the_work(patient: Path, run: Run) -> None:
    (patient / "out").write_text("a file")
    outcome = run(arguments(patient))
    assert outcome.code == 1
    assert "it is a file" in outcome.stderr


def test_a_missing_scan_is_said_before_the_work(patient: Path, run: Run) -> None:
    (patient / "last.nii.gz").unlink()
    outcome = run(arguments(patient))
    assert outcome.code == 1
    assert "time point last" in outcome.stderr
    assert "last.nii.gz does not exist" in outcome.stderr


def test_a_baseline_that_cannot_be_used_is_an_error(patient: Path, run: Run) -> None:
    write_nifti(patient / "base-mask.nii.gz", mask(0), np.eye(4))
    outcome = run(arguments(patient))
    assert outcome.code != 0
    assert "all others need it" in outcome.stderr
    assert "states another place" in outcome.stderr


def test_text_from_files_is_neither_markup_nor_control_characters_in_the_report(patient: Path, run: Run) -> None:
    """The name of the patient, and an organ out of a table."""
    (patient / "targets.csv").write_text("label,kind,organ\n1,target,<img src=x onerror=alert(1)>\x1b[2J\u202e\n")
    outcome = run(arguments(patient, "--targets", str(patient / "targets.csv"), "--subject", "<b>P7</b>"))
    assert outcome.code == 0, outcome.stderr
    text = (patient / "out" / "report.html").read_text(encoding="utf-8")
    assert "<b>P7</b>" in Page(text).words
    assert "<img src=x onerror=alert(1)>" in Page(text).words
    assert not any(letter in text for letter in "\x1b\u202e")
    assert not any(address == "x" for address in Page(text).addresses)


def test_report_and_tables_are_replaced_together_or_not_at_all(
    patient: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(arguments(patient)).code == 0
    before = {path.name: path.read_bytes() for path in (patient / "out").iterdir() if path.is_file()}
    assert {"report.html", "lesions.tsv"} <= set(before)
    import os

    replace, failed = os.replace, []

    def full(source: Any, target: Any) -> None:
        if Path(target).name == "report.html" and not failed:
            failed.append(target)
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    outcome = run(arguments(patient, "--subject", "another"))
    monkeypatch.undo()
    assert outcome.code == 1
    assert "Nothing was changed" in outcome.stderr
    assert {path.name: path.read_bytes() for path in (patient / "out").iterdir() if path.is_file()} == before
