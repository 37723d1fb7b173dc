from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from meddift.errors import MissingFileError, OptionsError
from meddift.tracking.timepoints import TimePoint, in_order, parse_date, read_time_points


def table(tmp_path, text, name="patient.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_dates_decide_the_order_and_paths_are_relative_to_the_table(tmp_path):
    path = table(
        tmp_path,
        "timepoint,date,scan,lesions,phase\nlate,2024-05-01,b/scan.nii.gz,b/m.nii.gz,portal\nA,20240110,a.nii.gz,,\n",
    )
    first, second = read_time_points(path)
    assert (first.name, first.day, first.scan, first.lesions) == ("A", "2024-01-10", tmp_path / "a.nii.gz", None)
    assert (second.name, second.scan) == ("late", tmp_path / "b" / "scan.nii.gz")
    assert second.lesions == tmp_path / "b" / "m.nii.gz"
    assert second.phase == "portal"


@pytest.mark.parametrize("delimiter", ["\t", ";"])
def test_other_separators_and_a_byte_order_mark(tmp_path, delimiter):
    lines = [["date", "scan"], ["2024-02-01", "b.nii"], ["2023-02-01", "a.nii"], ["", ""]]
    path = table(tmp_path, "\ufeff" + "\n".join(delimiter.join(line) for line in lines))
    assert [(p.name, p.day) for p in read_time_points(path)] == [("T0", "2023-02-01"), ("T1", "2024-02-01")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("date,scan\n2024-01-01,a\n2024-01-01,b\n", "two time points have the date 2024-01-01"),
        ("date,scan\n2024-01-01,a\n,b\n", "has no date"),
        ("scan\na\nb\n", "has no date"),
        ("date,scan\n2024-13-01,a\n2024-01-02,b\n", "row 1: '2024-13-01' is no date"),
        ("date,image\n2024-01-01,a\n", "unknown column image"),
        ("date,lesions\n2024-01-01,a\n", "no column scan"),
        ("date,scan\n2024-01-01,a\n", "two scans or more, got 1"),
        ("date,scan\n2024-01-01,a\n2024-01-02,\n", "row 2 names no scan"),
        ("timepoint,date,scan\nx,2024-01-01,a\nx,2024-01-02,b\n", "name x is given to two"),
        ("timepoint,date,scan\n../x,2024-01-01,a\ny,2024-01-02,b\n", "cannot be part of a file name"),
        ("", "no column scan"),
    ],
)
def test_bad_tables_say_what_is_wrong(tmp_path, text, words):
    with pytest.raises(OptionsError, match=words):
        read_time_points(table(tmp_path, text))


def test_a_missing_table(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.csv"):
        read_time_points(tmp_path / "nowhere.csv")


def test_two_scans_of_one_day_are_told_apart_by_the_time(tmp_path):
    path = table(tmp_path, "date,scan\n2024-01-01T15:00,b\n2024-01-01T09:30,a\n")
    assert [p.day for p in read_time_points(path)] == ["2024-01-01T09:30", "2024-01-01T15:00"]


def test_without_any_date_the_order_given_is_kept():
    points = in_order([TimePoint("z", Path("z.nii")), TimePoint("", Path("a.nii"))])
    assert [p.name for p in points] == ["z", "T1"]
    with pytest.raises(OptionsError, match="time point 2 has no date"):
        in_order([TimePoint("z", Path("z"), datetime(2024, 1, 1)), TimePoint("", Path("a"))])


def test_dates():
    assert parse_date(" 2024-03-01 ") == datetime(2024, 3, 1)
    assert parse_date("") is None
    with pytest.raises(OptionsError, match="2024-03-01"):
        parse_date("1.3.2024")
