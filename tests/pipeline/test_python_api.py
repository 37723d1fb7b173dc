"""What people type in Python: one line, tables, labels, progress that stops the work, images of other libraries."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

import meddift
from meddift.errors import ImageError, OptionsError, PointsError
from meddift.geometry import AffineTransform, Grid
from meddift.io import as_volume
from meddift.matching.verdict import Reason
from meddift.points import Points
from meddift.volume import Volume
from texture import lattice, scan

SHIFT = np.array([3.1, -1.7, 2.4])
NEAR = {"levels": ("mind",), "store": False, "device": "cpu", "prior": "identity", "search_radius_mm": 8.0}
POINTS = Points([[4.0, -3.0, 2.0], [300.0, 0, 0], [np.nan] * 3], ("liver", "far", "lost"), {"size": ["9", "8", "7"]})


def shifted(shift):
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    return AffineTransform(matrix)


@pytest.fixture(scope="module")
def scans():
    return scan(lattice((34, 30, 32))), scan(lattice((32, 33, 31), center=(1.0, -2.0, 1.0)), shifted(-SHIFT))


@pytest.fixture(scope="module")
def matches(scans):
    return meddift.Matcher(**NEAR).pair(*scans).match(POINTS)


def test_one_line_is_the_long_way(scans, matches):
    found = meddift.match(*scans, [4.0, -3.0, 2.0], **NEAR)
    np.testing.assert_array_equal(found[0].moving, matches["liver"].moving)
    np.testing.assert_allclose(found[0].moving, np.array([4.0, -3.0, 2.0]) + SHIFT, atol=0.4)
    with pytest.raises(PointsError, match="read_points"):
        meddift.match(*scans, "lesions.csv", **NEAR)


def test_matches_are_asked_by_label_and_by_row_and_one_after_the_other(matches):
    assert [match.label for match in matches] == ["liver", "far", "lost"]
    assert [match.verdict for match in matches] == ["ok", "outside", "outside"]
    assert matches[-1].label == "lost"
    assert [reason.code for reason in matches["far"].reasons] == ["outside_fixed"]
    assert matches["lost"].reasons[0].code == "no_position"
    for bad in ("kidney", 3):
        with pytest.raises((PointsError, IndexError)):
            matches[bad]
    assert "liver" in repr(matches["liver"])
    assert "array" not in repr(matches) + repr(matches["liver"])


def test_a_table_has_all_that_is_known(matches, monkeypatch):
    pandas = pytest.importorskip("pandas")
    table = matches.to_frame()
    assert list(table["label"]) == ["liver", "far", "lost"]
    np.testing.assert_array_equal(table[["moving_x", "moving_y", "moving_z"]], matches.moving.positions)
    assert list(table["codes"]) == ["", "outside_fixed", "no_position"]
    assert list(table["size"]) == ["9", "8", "7"]
    again = Points.from_frame(table, x="fixed_x", y="fixed_y", z="fixed_z")
    np.testing.assert_array_equal(again.positions, POINTS.positions)
    assert again.labels == POINTS.labels
    with pytest.raises(PointsError, match="no column x"):
        Points.from_frame(pandas.DataFrame({"a": [1]}))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(OptionsError, match="pip install pandas"):
        matches.to_frame()


def test_what_is_saved_holds_verdicts_whatever_the_format(matches, tmp_path):
    for name in ("found.csv", "found.mrk.json", "found.fcsv"):
        matches.save(tmp_path / name)
        back = meddift.read_points(tmp_path / name)
        np.testing.assert_allclose(back.positions, matches.moving.positions, atol=1e-3)
        assert "outside the fixed scan" in (tmp_path / name).read_text()
    matches.save(tmp_path / "found.json")
    rows = json.loads((tmp_path / "found.json").read_text())["points"]
    assert rows == matches.rows()
    assert rows[1]["codes"] == ["outside_fixed"]


def test_a_notebook_shows_a_table_in_which_labels_are_text(scans):
    found = meddift.match(*scans, Points([[4.0, -3.0, 2.0]], ("<script>",)), **NEAR)
    html = found._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script>" not in html


def test_matches_that_contradict_themselves_are_refused(matches):
    from dataclasses import replace

    for wrong in (
        {"similarity": np.zeros(2)},
        {"moving": Points(matches.moving.positions)},
        {"verdict": ("ok", "ok", "outside")},
        {"reasons": ((Reason.of("air"),), *matches.reasons[1:])},
    ):
        with pytest.raises(PointsError):
            replace(matches, **wrong)


def test_pictures_are_figures(scans, matches):
    from matplotlib.figure import Figure

    assert isinstance(matches.plot(), Figure)
    from dataclasses import replace

    with pytest.raises(OptionsError, match=r"pair\.match"):
        replace(matches, drawing=None).plot()


def test_a_call_that_reports_elsewhere_is_stopped_by_what_its_report_raises(scans):
    usual, told = [], []
    pair = meddift.Matcher(**NEAR, on_progress=lambda text, share: usual.append(share)).pair(*scans)
    usual.clear()

    class StopError(Exception):
        pass

    def stop(text, share):
        told.append(text)
        if len(told) == 2:
            raise StopError

    with pytest.raises(StopError):
        pair.match(POINTS, on_progress=stop)
    assert len(told) == 2
    assert usual == []
    assert pair.match(POINTS)[0].verdict == "ok"
    assert usual[-1] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [({"prior": "afine"}, "affine"), ({"prior": "nothing"}, "identity"), ({"precision": "half"}, "float32")],
)
def test_wrong_words_are_refused_with_the_right_ones_before_any_work(options, words):
    with pytest.raises(OptionsError, match=words):
        meddift.Matcher(**options)
    with pytest.raises(TypeError):
        meddift.Matcher(priors="affine")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5"):
        meddift.Matcher(prior="some/nowhere.h5")


def test_a_scan_encoded_otherwise_is_refused(scans):
    other = meddift.Matcher(levels=("mind",), store=False, device="cpu")
    encoded = other.encode(scans[0])
    assert other.pair(encoded, scans[1]).fixed is encoded
    with pytest.raises(OptionsError, match="same Matcher"):
        meddift.Matcher(store=False, device="cpu").pair(encoded, scans[1])


def test_what_was_freed_is_there_again_when_asked(scans, matches):
    with meddift.Matcher(**NEAR) as matcher:
        pair = matcher.pair(*scans)
        pair.match(POINTS)
    np.testing.assert_array_equal(pair.match(POINTS).moving.positions, matches.moving.positions)


def test_images_of_torchio_are_taken():
    """Their shape: a tensor of (1, X, Y, Z), an affine to RAS, and `spatial_shape`."""
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    data = np.random.default_rng(0).normal(size=(1, 5, 6, 7)).astype(np.float32)
    found = as_volume(SimpleNamespace(data=data, affine=affine, spatial_shape=(5, 6, 7)))
    np.testing.assert_array_equal(found.data, data[0])
    assert found.grid == Grid((5, 6, 7), affine)
    with pytest.raises(ImageError):
        as_volume(SimpleNamespace(data=np.zeros((3, 5, 6, 7)), affine=affine, spatial_shape=(5, 6, 7)))


def test_a_volume_said_in_parts_is_what_nibabel_makes_of_its_affine():
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -1.0]])
    made = Volume.of(np.arange(24.0).reshape(2, 3, 4), spacing=(1, 2, 3), origin=(5, 6, 7), direction=turn)
    affine = nibabel.affines.from_matvec(turn @ np.diag([1.0, 2, 3]), [5, 6, 7])
    np.testing.assert_allclose(made.grid.affine, affine)
    np.testing.assert_array_equal(np.asarray(made), made.data)
    assert np.asarray(made, dtype=np.float32).dtype == np.float32
    with pytest.raises(meddift.MeddiftError, match="length 1"):
        Volume.of(made.data, direction=2 * np.eye(3))


def test_a_registration_carries_images_labels_and_points(scans, tmp_path):
    fixed, moving = scans
    mask = tmp_path / "mask.nii.gz"
    meddift.write_volume(Volume(np.ones(fixed.grid.shape, dtype=np.uint8), fixed.grid), mask)
    found = (
        meddift.Matcher(**{**NEAR, "prior": shifted(SHIFT)})
        .pair(fixed, moving)
        .register(stages="affine", fixed_mask=str(mask))
    )
    np.testing.assert_allclose(found.apply([4.0, -3.0, 2.0])[0].moving, np.array([4.0, -3.0, 2.0]) + SHIFT, atol=1e-6)
    warped = found.warp()
    inner = fixed.grid.index_to_world(np.random.default_rng(0).uniform(8, 22, (50, 3)))
    assert np.corrcoef(warped.at(inner), fixed.at(inner))[0, 1] > 0.98
    labels = Volume(np.zeros(moving.grid.shape, dtype=np.uint8), moving.grid)
    labels.data[10:14, 10:14, 10:14] = 3
    center = Points.from_labels(labels)
    assert center.labels == ("3",)
    np.testing.assert_allclose(center.positions[0], moving.grid.index_to_world([11.5, 11.5, 11.5]))
    carried = Points.from_labels(found.warp_labels(labels))
    np.testing.assert_allclose(carried.positions[0] + SHIFT, center.positions[0], atol=1.2)
    found.save(tmp_path / "affine.tfm")
    assert (tmp_path / "affine.tfm.transform.json").exists() or list(tmp_path.glob("*.transform.json"))
    read = meddift.read_transform(tmp_path / "affine.tfm")
    np.testing.assert_allclose(read.apply(inner), found.transform.apply(inner), atol=1e-6)
    np.testing.assert_array_equal(meddift.warp(moving, tmp_path / "affine.tfm", fixed).data, warped.data)


def test_as_many_threads_as_asked_for_and_elsewhere_as_before(scans, matches):
    import torch

    before, inside = torch.get_num_threads(), set()
    found = meddift.match(
        *scans, POINTS, **NEAR, threads=before + 1, on_progress=lambda *_: inside.add(torch.get_num_threads())
    )
    assert before + 1 in inside
    assert torch.get_num_threads() == before
    np.testing.assert_allclose(found.moving.positions, matches.moving.positions, atol=1e-3)
    with pytest.raises(OptionsError, match="threads"):
        meddift.Matcher(threads=0)
