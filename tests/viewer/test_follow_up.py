"""Follow-up mode: what `meddift track` has found is shown, and a person's word comes back in the table it reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from followed import LESIONS, STEP, write_follow_up
from opened_page import opened
from served import Client

from meddift.errors import MissingFileError, OptionsError
from meddift.pipeline import Matcher
from meddift.tracking.tables import read_review, read_table
from meddift.viewer.opening import follow_up_session
from meddift.viewer.server import Server
from meddift.viewer.session import Session

NAMES = ["T0", "T1", "T2"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_follow_up(tmp_path_factory.mktemp("patient"))


@pytest.fixture
def folder(results: Path, tmp_path: Path) -> Path:
    """A copy of the results that a test may change; the scans stay where they are."""
    import shutil

    return Path(shutil.copytree(results, tmp_path / "out"))


@pytest.fixture
def session(folder: Path, matcher: Matcher) -> Iterator[Session]:
    made = follow_up_session(folder, matcher)
    yield made
    made.close()


def test_lesions_are_told_with_places_and_sizes_and_without_the_patients_name(client: Client) -> None:
    answer = client.ask("GET", "/api/v1/follow-up")
    told = answer.json()
    assert "DOE" not in answer.text
    assert [point["name"] for point in told["time_points"]] == NAMES
    rows = {(row["lesion_id"], row["number"]): row for row in told["rows"]}
    assert {lesion for lesion, _ in rows} == {str(label) for label, _, _ in LESIONS}
    for label, center, radii in LESIONS[:2]:
        for k in range(3):
            row = rows[str(label), k]
            np.testing.assert_allclose(row["place"], np.array(center) + k * np.array(STEP), atol=1.0)
            assert row["long_mm"] == pytest.approx(2 * radii[k], abs=2.5)
    assert rows["3", 1]["state"] == "disappeared"
    assert rows["4", 1]["state"] == "new"
    assert len(told["chart"]["curves"]) == 4


def test_decisions_are_written_into_the_table_that_track_reads(client: Client, folder: Path) -> None:
    before = read_table(folder / "lesions.tsv")
    client.api("PATCH", "follow-up/1/1", json={"review": "confirmed"})
    client.api("PATCH", "follow-up/2/1", json={"review": "corrected", "label": "4"})
    client.api("PATCH", "follow-up/2/2", json={"review": "rejected"})
    client.api("PATCH", "follow-up/3/1", json={"review": "confirmed"})
    told = client.api("POST", "follow-up/undo")
    assert not told["saved"]
    assert client.api("POST", "follow-up/save")["saved"]
    decisions = {(d.lesion, d.timepoint): d for d in read_review(folder / "lesions.tsv", NAMES).decisions}
    assert decisions["1", 1].review == "confirmed"
    assert (decisions["2", 1].review, decisions["2", 1].labels) == ("corrected", ("4",))
    assert decisions["2", 2].review == "rejected"
    assert decisions["3", 1].review == "proposed"
    # All that nobody has spoken of is as it was.
    after = read_table(folder / "lesions.tsv")
    assert [row for row in after if row["lesion_id"] == "4"] == [row for row in before if row["lesion_id"] == "4"]
    assert {key: row["subject"] for key, row in enumerate(after)} == {
        k: row["subject"] for k, row in enumerate(before)
    }


@pytest.mark.parametrize(
    ("path", "said", "status"),
    [
        ("9/1", {"review": "confirmed"}, 400),
        ("1/9", {"review": "confirmed"}, 400),
        ("1/1", {"review": "corrected", "label": "77"}, 400),
        ("1/1", {"review": "perhaps"}, 422),
        ("1/1", {"review": "corrected", "state": "gone"}, 422),
    ],
)
def test_what_makes_no_sense_is_refused(client: Client, path: str, said: dict[str, str], status: int) -> None:
    assert client.ask("PATCH", f"/api/v1/follow-up/{path}", json=said).status_code == status


def test_a_picture_shows_the_lesion_with_its_outline(client: Client) -> None:
    there = client.ask("GET", "/api/v1/follow-up/1/1/picture.svg")
    gone = client.ask("GET", "/api/v1/follow-up/3/1/picture.svg")
    assert there.headers["content-type"] == "image/svg+xml"
    assert there.text.count("<path") == 1
    assert "Z" in there.text.split("<path")[1]  # a closed line around it
    assert "Z" not in gone.text.split("<path")[1]  # a cross where it would be


def test_a_scan_that_has_changed_or_gone_is_not_shown_as_if_it_were_the_one(
    results: Path, folder: Path, matcher: Matcher
) -> None:
    with pytest.raises(MissingFileError, match="no result of `meddift track`"):
        follow_up_session(folder.parent, matcher)
    text = (folder / "lesions.json").read_text(encoding="utf-8")
    (folder / "lesions.json").write_text(text.replace("scan-1.nii.gz", "scan-2.nii.gz"), encoding="utf-8")
    changed = follow_up_session(folder, matcher)
    with pytest.raises(OptionsError, match="another scan"):
        _ = changed.pairs.scan("t1").encoded
    (folder / "lesions.json").write_text(text.replace("scan-1.nii.gz", "nowhere.nii.gz"), encoding="utf-8")
    with pytest.raises(MissingFileError, match="time point T1"):
        follow_up_session(folder, matcher)


def test_the_page_leads_through_the_lesions(session: Session, browser, folder: Path) -> None:
    with Server(session) as server, opened(browser, server, prepared=False) as page:
        page.wait("document.querySelectorAll('#strip img').length === 3")
        page.page.locator("[data-cell='2/1']").click()
        page.wait("document.querySelector('#link h2').textContent === 'Lesion 2 at T1'")
        center = np.array(LESIONS[1][1])
        page.wait(f"Math.abs(document.querySelectorAll('.scan input')[3].value - {center[0] + STEP[0]}) < 1.5")
        np.testing.assert_allclose(page.position(0), center, atol=1.0)
        np.testing.assert_allclose(page.position(1), center + STEP, atol=1.0)
        page.page.keyboard.press("a")
        page.wait("document.querySelector(\"[data-cell='2/1']\").textContent.includes('✓')")
        page.page.locator("#link select").select_option("4")
        page.wait("document.querySelector(\"[data-cell='2/1']\").textContent.includes('✎')")
        page.page.keyboard.press("u")
        page.page.keyboard.press("s")
        page.wait("document.querySelector('#notices').textContent.includes('lesions.tsv')")
        assert "DOE" not in page.text("body")
    decisions = {(d.lesion, d.timepoint): d for d in read_review(folder / "lesions.tsv", NAMES).decisions}
    assert decisions["2", 1].review == "confirmed"


def test_points_are_asked_between_time_points(client: Client) -> None:
    assert client.ask("GET", "/api/v1/points").status_code == 400  # there is no list
    told = client.ask("POST", "/api/v1/match", json={"fixed": "t0", "moving": "t2", "points": [[40, 80, 60]]})
    assert told.json()["error"]["code"] == "preparing"
