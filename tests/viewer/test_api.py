"""The API says what the engine says, in world RAS mm, and keeps what a person says."""

from __future__ import annotations

import csv
import io
import json
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
from served import SHIFT, Client

from meddift.io import read_points
from meddift.points import Points
from meddift.viewer.session import Session

TWO = {"fixed": "s0", "moving": "s1"}
BACK = {"fixed": "s1", "moving": "s0"}
ANSWER = ("verdict", "reason", "similarity", "margin", "inverse_error_mm")
POINT = [4.0, -6.0, 8.0]


def test_the_session_names_ids_and_no_paths(client: Client) -> None:
    told = client.api("GET", "session")
    assert told["pair"] == {**TWO, "transform": False}
    assert [scan["title"] for scan in told["scans"]] == ["Fixed scan", "Moving scan"]
    assert "/" not in json.dumps(told)


def test_the_copy_of_a_scan_lies_where_the_scan_does(client: Client, volumes) -> None:
    content = client.ask("GET", "/api/v1/scans/s0/volume.nii").content
    image = nibabel.Nifti1Image.from_bytes(content)
    told = client.api("GET", "scans/s0")["copy"]
    assert image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.get_sform(), volumes[0].grid.affine, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    values = told["offset"] + told["scale"] * np.asarray(image.dataobj, dtype=float)
    assert np.abs(values - volumes[0].data).max() <= 0.5 * max(told["scale"], 1.0) + 1e-3


@pytest.mark.usefixtures("ready")
def test_points_are_found_where_the_engine_finds_them(client: Client, session: Session) -> None:
    positions = [POINT, [-8.0, 5.0, -3.0]]
    told = client.api("POST", "match", json={**TWO, "points": positions, "number": 7})
    expected = session.pairs.pair("s0", "s1").match(Points(np.array(positions))).rows()
    assert told["number"] == 7
    for one, other in zip(told["matches"], expected, strict=True):
        np.testing.assert_allclose(one["moving"], other["moving"], atol=1e-4)
        assert [one[key] for key in ANSWER] == [other[key] for key in ANSWER]
        np.testing.assert_allclose(one["moving"], np.array(one["fixed"]) + SHIFT, atol=1.0)


@pytest.mark.usefixtures("ready")
def test_a_click_in_the_moving_scan_asks_the_fixed_one(client: Client) -> None:
    there = client.api("POST", "match", json={**BACK, "points": [(np.array(POINT) + SHIFT).tolist()]})["matches"][0]
    np.testing.assert_allclose(there["moving"], POINT, atol=1.0)


def test_a_question_before_the_scans_are_ready_says_how_far_they_are(client: Client, session: Session) -> None:
    hold = threading.Event()
    session.jobs.start("prepare", "other", lambda report: hold.wait(30))
    answer = client.ask("POST", "/api/v1/match", json={**TWO, "points": [POINT]})
    told = answer.json()
    assert answer.status_code == 409
    assert told["error"]["code"] == "preparing"
    assert told["job"]["state"] == "waiting"
    hold.set()


@pytest.mark.usefixtures("ready")
def test_the_map_is_greatest_at_the_answer_and_rivals_lie_elsewhere(client: Client) -> None:
    found = client.api("POST", "match", json={**TWO, "points": [POINT]})["matches"][0]
    told = client.api("POST", "similarity", json={**TWO, "point": POINT, "answer": found["moving"], "number": 3})
    image = nibabel.Nifti1Image.from_bytes(client.ask("GET", f"/api/v1/maps/{told['map']}.nii").content)
    values = np.asarray(image.dataobj, dtype=float) * told["scale"]
    best = image.affine @ [*np.unravel_index(values.argmax(), values.shape), 1.0]
    assert np.linalg.norm(best[:3] - found["moving"]) <= 5.0
    assert values.max() == pytest.approx(told["high"], abs=1e-3)
    for rival in told["rivals"]:
        assert np.linalg.norm(np.array(rival["position"]) - found["moving"]) >= 15.0
        assert rival["similarity"] <= told["high"]


@pytest.mark.usefixtures("ready")
def test_the_field_carries_points_both_ways(client: Client) -> None:
    # Here points are looked for around the same place: that is what is known for scrolling in step.
    for two in (TWO, BACK):
        told = client.api("POST", "warp", json={**two, "points": [POINT], "number": 2})
        np.testing.assert_allclose(told["points"], [POINT], atol=1e-3)


@pytest.mark.usefixtures("ready")
def test_what_a_person_says_is_kept_and_can_be_taken_back(client: Client) -> None:
    added = client.api("POST", "points", json={"position": POINT, "review": "confirmed"})
    row = added["points"][0]
    assert row["label"] == "1"
    assert row["review"] == "confirmed"
    np.testing.assert_allclose(row["moving"], np.array(POINT) + SHIFT, atol=1.0)
    key = added["added"]
    moved = client.api("PATCH", f"points/{key}", json={"corrected": [11.0, -9.0, 12.0]})["points"][0]
    assert moved["review"] == "corrected"
    assert moved["moving"] == [11.0, -9.0, 12.0]
    assert moved["found"] == row["moving"]
    gone = client.api("PATCH", f"points/{key}", json={"review": "absent", "label": "hilum"})["points"][0]
    assert (gone["moving"], gone["label"]) == (None, "hilum")
    assert client.api("DELETE", f"points/{key}")["points"] == []
    for expected in (gone, moved, row):
        assert client.api("POST", "points/undo")["points"] == [expected]
    assert client.api("POST", "points/undo")["points"] == []
    assert not client.api("GET", "points")["can_undo"]


@pytest.mark.usefixtures("ready")
def test_a_point_clicked_in_the_moving_scan_stands_in_both_files(client: Client, tmp_path: Path) -> None:
    there = (np.array(POINT) + SHIFT).tolist()
    row = client.api("POST", "points", json={"asked": "moving", "position": there, "review": "confirmed"})["points"][0]
    assert row["moving"] == there
    client.api("POST", "points/save")
    np.testing.assert_allclose(read_points(tmp_path / "points" / "fixed.mrk.json").positions[0], POINT, atol=1.0)
    np.testing.assert_allclose(read_points(tmp_path / "points" / "moving.mrk.json").positions[0], there, atol=1e-4)


@pytest.mark.usefixtures("ready")
def test_saving_writes_the_files_of_the_command_line(client: Client, session: Session, tmp_path: Path) -> None:
    client.api("POST", "points", json={"position": POINT, "review": "confirmed", "label": "a"})
    corrected = {"position": [0.0, 0.0, 0.0], "review": "corrected", "corrected": [6.5, -3.5, 4.5]}
    client.api("POST", "points", json=corrected)
    client.api("POST", "points", json={"position": [10.0, 0.0, 0.0], "review": "absent"})
    told = client.api("POST", "points/save")
    folder = tmp_path / "points"
    assert sorted(told["files"]) == sorted(path.name for path in folder.iterdir())
    assert told["saved"]
    fixed, moving = (read_points(folder / f"{side}.mrk.json") for side in ("fixed", "moving"))
    assert fixed.labels == moving.labels == ("a", "1", "2")
    np.testing.assert_allclose(fixed.positions, [POINT, [0, 0, 0], [10, 0, 0]], atol=1e-4)
    np.testing.assert_allclose(moving.positions[1], [6.5, -3.5, 4.5], atol=1e-4)
    assert moving.missing.tolist() == [False, False, True]
    lines = [line for line in (folder / "moving.csv").read_text().splitlines() if not line.startswith("#")]
    table = list(csv.DictReader(lines))
    assert [row["review"] for row in table] == ["confirmed", "corrected", "absent"]
    assert float(table[0]["similarity"]) == pytest.approx(session.sheet.rows[0].match.similarity, abs=1e-6)
    for row in client.api("GET", "points")["points"]:
        client.api("DELETE", f"points/{row['id']}")
    assert client.api("POST", "points/save")["files"] == ["points.json"]
    assert [path.name for path in folder.iterdir()] == ["points.json"]


@pytest.mark.usefixtures("ready")
def test_points_files_come_in_and_go_out(client: Client) -> None:
    text = "# meddift points; version=1; space=RAS; unit=mm\nlabel,x,y,z\nhilum,4,-6,8\nrib,-8,5,-3\n"
    client.api("POST", "points/import", json={"name": "mine.csv", "content": text})
    rows = client.api("POST", "points/answer")["points"]
    assert [row["label"] for row in rows] == ["hilum", "rib"]
    assert all(row["review"] == "proposed" and row["verdict"] is not None for row in rows)
    np.testing.assert_allclose(rows[0]["moving"], np.array(POINT) + SHIFT, atol=1.0)
    out = client.ask("GET", "/api/v1/points/export?side=moving&suffix=.mrk.json")
    markup = json.loads(out.text)["markups"][0]
    assert [point["label"] for point in markup["controlPoints"]] == ["hilum", "rib"]
    refused = client.ask("POST", "/api/v1/points/import", json={"name": "x.exe", "content": "?"})
    assert refused.status_code == 400


def test_a_plane_shows_the_scan_as_radiologists_look_at_it(client: Client, volumes) -> None:
    import matplotlib.image

    volume = volumes[0]
    at = volume.grid.index_to_world([23, 20, 21])
    query = f"plane=axial&x={at[0]}&y={at[1]}&z={at[2]}&low=-400&high=400&pixels=64"
    content = client.ask("GET", f"/api/v1/scans/s0/plane.png?{query}").content
    grey = matplotlib.image.imread(io.BytesIO(content))
    grey = grey if grey.ndim == 2 else grey[..., 0]
    low, high = volume.grid.corners.min(axis=0), volume.grid.corners.max(axis=0)
    rows, columns = grey.shape
    for row, column in ((0, 0), (rows // 3, columns // 5), (rows - 1, columns - 2)):
        # The patient's right is on the left, the front above.
        place = [
            high[0] - (column + 0.5) * (high[0] - low[0]) / columns,
            high[1] - (row + 0.5) * (high[1] - low[1]) / rows,
            at[2],
        ]
        expected = np.clip((volume.at(np.array([place]))[0] + 400) / 800, 0, 1)
        assert grey[row, column] == pytest.approx(expected, abs=0.01)


def test_a_large_scan_is_shown_coarser_and_says_so() -> None:
    from meddift.viewer.copies import browser_copy
    from texture import lattice, scan

    volume = scan(lattice((40, 40, 20), spacing=(1.0, 1.0, 3.0)))
    copy = browser_copy(volume, most_voxels=6000)
    image = nibabel.Nifti1Image.from_bytes(copy.nifti)
    assert copy.reduced
    assert np.prod(image.shape) <= 6000
    middle = volume.grid.center
    index = np.linalg.inv(image.affine) @ [*middle, 1.0]
    assert ((index[:3] > 0) & (index[:3] < np.array(image.shape) - 1)).all()
