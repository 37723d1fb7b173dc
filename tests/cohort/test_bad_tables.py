"""What people get wrong is said before the work begins, or costs one row; nothing that is there is lost."""

from __future__ import annotations

import errno
import os

import pytest

from cohort.fake_engine import DIES_ONCE, number_of
from cohort.small_disks import small_disk
from meddift import cohort
from meddift.cohort.executor import ExecutorError
from meddift.cohort.manifest import latest_results
from meddift.cohort.plan import Plan
from meddift.cohort.preparing import prepare
from meddift.cohort.tables import read_cases
from meddift.errors import MemoryLimitError, MissingFileError, OptionsError, OutputError


def write(fake, text: str) -> None:
    fake.table.write_text(text)


def test_a_missing_scan_costs_its_own_row_until_it_is_there(fake):
    write(fake, "case,fixed,moving\na,scan0.nii,scan1.nii\nb,scan0.nii,gone.nii\n")
    plan = fake.plan("out", told={"trouble": False})
    assert cohort.run(plan).counts == {"done": 1, "refused": 1}
    assert "gone.nii" in latest_results(fake.folder / "out")["b"]["reason"]
    (fake.folder / "gone.nii").write_text("here")
    assert cohort.run(plan).counts == {"done": 2}
    assert fake.asked("out")["run a"] == 1


def test_nothing_is_begun_where_no_case_can_be_done(fake):
    write(fake, "case,fixed,moving\nb,none.nii,gone.nii\n")
    with pytest.raises(MissingFileError, match=r"no case can be done.*none\.nii"):
        cohort.run(fake.plan("out"))
    assert not (fake.folder / "out").exists()


def test_one_scan_in_several_spellings_is_encoded_once(fake):
    (fake.folder / "sub").mkdir()
    (fake.folder / "link.nii").symlink_to(fake.folder / "scan0.nii")
    os.link(fake.folder / "scan0.nii", fake.folder / "hard.nii")
    rows = ["scan0.nii", "./sub/../scan0.nii", "link.nii", "hard.nii", str(fake.folder / "scan0.nii")]
    write(fake, "case,fixed,moving\n" + "".join(f"c{k},{row},scan1.nii\n" for k, row in enumerate(rows)))
    assert cohort.run(fake.plan("out", told={"trouble": False})).counts == {"done": 5}
    encoded = [(what, count) for what, count in fake.asked("out").items() if what.startswith("encode")]
    assert sorted(count for _, count in encoded) == [1, 1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("case,fixed,moving\na,x,y\na,x,z\n", "given twice"),
        ("case,fixed,moving\na-1,x,y\na.1,x,z\n", "same files"),
        ("case,fixed,moving\nA,x,y\na,x,z\n", "given twice"),
        ("case,fixed,moving\n../a,x,y\n", "cannot be the name"),
        ("case,fixed,moving\na,,y\n", "row 1: fixed is empty"),
        ("case,fixed,moving,colour\na,x,y,red\n", "'colour'"),
        ("case,fixed\na,x\n", "needs the columns"),
        ("case,fixed,moving\na,x\n", "number of cells"),
        ("case,fixed,moving\n", "no row"),
        ("", "empty"),
        ("case,fixed,moving\n\0,\0,\0\n", "characters of value 0"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused_with_its_reason(fake, text, told):
    write(fake, text)
    with pytest.raises(OptionsError, match=told):
        prepare(fake.plan("out"))
    assert not (fake.folder / "out").exists()


def test_what_is_no_text_is_no_table(fake):
    fake.table.write_bytes(b"PK\x03\x04\xff\xfe\x00\x80")
    with pytest.raises(OptionsError, match="UTF-8"):
        prepare(fake.plan("out"))
    fake.table.unlink()
    with pytest.raises(MissingFileError, match=r"pairs\.csv"):
        prepare(fake.plan("out"))


def test_patients_become_pairs_with_the_first_scan_by_date(tmp_path):
    table = tmp_path / "patients.tsv"
    rows = ["subject\tscan\tdate\tlesions", "p1\tb.nii\t2024-05-01\tb-mask.nii", "p1\ta.nii\t2023-05-01\ta-mask.nii",
            "p1\tc.nii\t2025-05-01\t", "p2\td.nii\t2024-01-01\t"]  # fmt: skip
    table.write_text("\n".join(rows))
    cases = read_cases(table, ("register", "track"))
    assert [case.name for case in cases] == ["p1_from-sesT1_to-sesT0", "p1_from-sesT2_to-sesT0", "p1_lesions", "p2"]
    assert [case.files.get("fixed") for case in cases[:2]] == [str(tmp_path / "a.nii")] * 2
    assert [case.files.get("moving") for case in cases[:2]] == [str(tmp_path / "b.nii"), str(tmp_path / "c.nii")]
    assert [point["scan"] for point in cases[2].time_points] == [str(tmp_path / f"{x}.nii") for x in "abc"]
    assert "only one scan" in cases[3].refusal
    table.write_text("case,fixed,moving\na,x,y\n")
    with pytest.raises(OptionsError, match="table of patients"):
        read_cases(table, ("track",))


def test_the_folder_of_another_plan_is_left_alone(fake):
    cohort.run(fake.plan("out"))
    before = (fake.folder / "out" / "cohort.tsv").read_bytes()
    with pytest.raises(OptionsError, match="code was 'fake' and is 'newer'"):
        cohort.run(fake.plan("out", told={"code": "newer"}))
    with pytest.raises(OptionsError, match="another plan"):
        cohort.run(fake.plan("out", do=("match", "register")))
    other = fake.folder / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="not made by this command"):
        cohort.run(fake.plan("other"))
    assert (fake.folder / "out" / "cohort.tsv").read_bytes() == before
    with pytest.raises(OptionsError, match="lies in the output folder"):
        cohort.run(
            Plan(fake.table, fake.folder, matcher={"notes": str(fake.folder)}, engine="cohort.fake_engine:make")
        )


def test_a_full_disk_stops_the_run_and_no_case_is_called_failed_for_it(fake):
    with pytest.raises(OutputError, match=r"disk is full.*goes on from there"):
        cohort.run(fake.plan("out", told={"full": 12}))
    done = latest_results(fake.folder / "out")
    assert 0 < len(done) < 40
    assert not [line for line in done.values() if "disk" in line["reason"]]


def test_a_disk_that_really_is_full_stops_the_run_which_goes_on_when_there_is_room(fake):
    cohort.run(fake.plan("roomy"))
    plan = fake.plan("small", workers=1)
    with small_disk(fake.folder / "small", "size=300k") as disk:
        with pytest.raises(OutputError, match="disk is full"):
            cohort.run(plan)
        done = latest_results(disk.folder)
        assert len(done) < 40
        assert not [line for line in done.values() if "space" in line["reason"] or "disk" in line["reason"]]
        disk.again("size=20m")
        cohort.run(plan)
        tables = [(fake.folder / out / "cohort.tsv").read_bytes() for out in ("small", "roomy")]
    assert tables[0] == tables[1]
    # Those that were finished before the disk was full were not run again.
    assert all(fake.asked("small")[f"run {name}"] <= 2 for name in done)
    ran_once = [name for name in done if fake.asked("small")[f"run {name}"] == 1]
    assert len(ran_once) > len(done) / 2


def test_a_read_only_disk_is_said_before_anything_is_begun(fake):
    with small_disk(fake.folder / "fixed", "size=1m") as disk:
        disk.again("ro")
        with pytest.raises(OutputError, match="read-only"):
            cohort.run(fake.plan("fixed"))
    assert not fake.asked("fixed")


def test_a_worker_of_another_version_is_refused(fake):
    with pytest.raises(ExecutorError, match=r"another code than this program \('newer', not 'fake'\)"):
        cohort.run(fake.plan("out", told={"code_of_worker": "newer"}))
    assert not list((fake.folder / "out" / "cases").glob("*/result.json"))


def test_a_manifest_that_cannot_be_added_to_stops_the_run(fake, monkeypatch):
    real = os.write

    def full(number, data):
        if data.startswith(b'{"case"'):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(number, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match=r"manifest\.jsonl: the disk is full"):
        cohort.run(fake.plan("out"))
    monkeypatch.undo()


def test_half_a_line_of_a_manifest_is_done_again_and_spoils_no_other(fake):
    cohort.run(fake.plan("out"))
    manifest, table = fake.folder / "out" / "manifest.jsonl", fake.folder / "out" / "cohort.tsv"
    before, asked = table.read_bytes(), sum(fake.asked("out").values())
    manifest.write_bytes(manifest.read_bytes()[:-30])
    cohort.run(fake.plan("out"))
    assert table.read_bytes() == before
    assert sum(fake.asked("out").values()) - asked <= 4  # from result.json, unless that case had failed


def test_a_result_that_was_removed_or_a_scan_that_changed_is_made_again(fake):
    plan = fake.plan("out", told={"trouble": False})
    cohort.run(plan)
    rows = fake.table.read_text().splitlines()[1:]
    name, fixed, moving = next(row.split(",") for row in rows if "scan3.nii" not in row)
    (fake.folder / "out" / "cases" / name / "result.json").unlink()
    cohort.run(plan)
    assert fake.asked("out")[f"run {name}"] == 2
    os.utime(fake.folder / fixed, (1, 1))  # copied: another time, the same content
    cohort.run(plan)
    assert fake.asked("out")[f"run {name}"] == 2
    (fake.folder / moving).write_text("another scan")
    cohort.run(plan)
    assert fake.asked("out")[f"run {name}"] == 3
    untouched = [row.split(",")[0] for row in rows if moving not in row and "scan3.nii" not in row]
    assert {fake.asked("out")[f"run {other}"] for other in untouched} == {1}


def test_what_failed_is_tried_again_only_when_asked(fake):
    plan = fake.plan("out")
    cohort.run(plan)
    asked = sum(fake.asked("out").values())
    cohort.run(plan)
    assert sum(fake.asked("out").values()) == asked
    (fake.folder / "scan3.nii").write_text("repaired")
    outcome = cohort.run(fake.plan("out", retry_failed=True))
    rows = fake.table.read_text().splitlines()[1:]
    assert outcome.counts["done"] == sum(number_of(row.split(",")[0]) >= 7 for row in rows)
    assert all(fake.asked("out")[f"run {row.split(',')[0]}"] == 1 for row in rows
               if number_of(row.split(",")[0]) >= DIES_ONCE and "scan3.nii" not in row)  # fmt: skip


def test_two_programs_on_one_folder_do_not_mix(fake):
    work = fake.folder / "out" / "work"
    cohort.run(fake.plan("out"))
    lock = work / "manifest.lock"
    lock.write_text('{"host": "elsewhere", "process": 7}')
    with pytest.raises(OutputError, match=r"process 7 on elsewhere.*delete"):
        cohort.run(fake.plan("out"))
    os.utime(lock, (1, 1))  # not renewed for long: its program is gone
    cohort.run(fake.plan("out"))
    assert not lock.exists()


def test_workers_that_do_not_fit_into_memory_are_refused_or_fewer(fake):
    with pytest.raises(MemoryLimitError, match="there is room for"):
        prepare(fake.plan("out", told={"memory_bytes": 10**13}))
    import psutil

    half = int(psutil.virtual_memory().available * 0.6)
    assert prepare(fake.plan("out", told={"memory_bytes": half}, workers=None)).crew.workers == 1


def test_workers_that_cannot_begin_are_said_with_what_they_say(fake, monkeypatch):
    ready = prepare(fake.plan("out"))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.chdir(fake.folder)
    (fake.folder / "meddift.py").write_text("raise SystemExit('broken installation')")
    monkeypatch.setattr("meddift.cohort.processes.child_environment", lambda threads: {"PYTHONPATH": str(fake.folder)})
    with pytest.raises(ExecutorError, match=r"end before they can work.*broken installation"):
        cohort.run(fake.plan("out"), prepared=ready)


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"threads": 0}, {"shard": (3, 2)}, {"do": ()}, {"do": ("warp",)},
              {"matcher": {"store": False}}]
)  # fmt: skip
def test_a_plan_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(OptionsError):
        Plan("a.csv", "out", **wrong)
