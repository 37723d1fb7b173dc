"""The report: counts that add up, reasons that stay text, cases worth a look first."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from meddift import cohort
from meddift.cohort.flags import FLAGS, flags_of
from meddift.cohort.page import worst_first
from meddift.cohort.table import COLUMNS, as_table, table_row


class Text(HTMLParser):
    """Words and tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words += data.split()


def test_counts_and_reasons_are_those_of_the_table(fake):
    (fake.folder / "scan4.nii").write_text("<script>broken</script>")
    fake.table.write_text(fake.table.read_text() + "gone,scan1.nii,<b>nowhere.nii\n")
    outcome = cohort.run(fake.plan("out"))
    text = (fake.folder / "out" / "report.html").read_text()
    page = Text()
    page.feed(text)
    told = " ".join(page.words)
    assert f"{outcome.total} cases {outcome.counts['done']} done {outcome.counts['failed']} failed 1 refused" in told
    assert "scan3.nii is no image" in told
    assert "<b>nowhere.nii" in told
    assert "script" not in page.tags
    assert not re.search(r'(src|href)="(https?:)?//', text)


def test_report_counts_what_is_left(fake):
    cohort.run(fake.plan("out", shard=(1, 4)))
    outcome = cohort.report(fake.folder / "out")
    assert outcome.total == 40
    assert outcome.left == 30
    page = Text()
    page.feed((fake.folder / "out" / "report.html").read_text())
    assert "30 not done yet" in " ".join(page.words)


@pytest.mark.parametrize(
    ("row", "flags"),
    [
        ({}, []),
        ({"points": 10, "ok": 5, "outside": 0}, []),
        ({"points": 10, "ok": 4, "outside": 0}, ["few_ok"]),
        ({"points": 10, "ok": 4, "outside": 6}, ["few_ok", "field_of_view"]),
        ({"supported_share": 0.49}, ["field_of_view"]),
        ({"supported_share": 0.51, "folding": 0.0011}, ["folding"]),
        ({"folding": 0.0009, "inverse_residual_mm": 1.2}, ["inverse"]),
        ({"tre_median_mm": 12.0}, ["far_from_truth"]),
        ({"tre_median_mm": None, "inverse_residual_mm": None, "lesions_uncertain": 1}, ["lesions_uncertain"]),
        ({"nothing_in_common": True, "points": 3, "ok": 0, "outside": 0}, ["few_ok", "nothing_in_common"]),
    ],
)
def test_flags_follow_their_rules(row, flags):
    assert flags_of(row) == flags
    assert set(flags) <= set(FLAGS)


def test_the_worst_come_first():
    def row(case, **cells):
        made = table_row({"case": case, "state": cells.pop("state", "done"), "row": cells})
        return {**made, "ok_share": None}

    rows = [row("good", supported_share=0.9), row("low", supported_share=0.4), row("failed", state="failed"),
            row("two", flags="folding inverse"), row("far", tre_median_mm=5), row("one", flags="folding")]  # fmt: skip
    assert [r["case"] for r in worst_first(rows)] == ["two", "one", "far", "low", "good"]


def test_the_table_is_sorted_and_holds_one_line_a_case():
    lines = [
        {"case": "b", "subject": "b", "state": "failed", "reason": "two\nlines\tand a tab"},
        {"case": "a", "subject": "a", "state": "done", "reason": "", "row": {"folding": 1e-7, "points": 3}},
    ]
    text = as_table([table_row(line) for line in lines])
    rows = [line.split("\t") for line in text.splitlines()]
    assert [row[0] for row in rows] == ["case", "a", "b"]
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert rows[2][5] == "two lines and a tab"
    assert rows[1][list(COLUMNS).index("folding")] == "0"
    assert rows[1][list(COLUMNS).index("ok")] == "n/a"
