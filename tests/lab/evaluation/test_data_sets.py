"""Layouts of data sets, on small ones written in the exact format."""

from __future__ import annotations

import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
from small_pairs import write_pairs

from meddift.errors import ImageError, MeddiftError, MissingFileError, OptionsError, OutputError, PointsError
from meddift_lab.running.case import store_case
from meddift_lab.sets import DATA_SETS, fetch_data_set, find_cases
from meddift_lab.sets.catalogue import Archive, DataSet
from meddift_lab.sets.dirlab import COLLECTIONS, read_raw
from meddift_lab.sets.synthetic import phantom_amplitude_mm, phantom_breathing

# ---------------------------------------------------------------------- Learn2Reg


def write_learn2reg(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """A data set of two pairs: the first with landmarks and keypoints, the second with keypoints. LPS images."""
    generator = np.random.default_rng(0)
    for folder in ("imagesTr", "landmarksTr", "keypointsTr", "masksTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    affine = np.diag([-1.75, -1.25, 1.75, 1.0])
    affine[:3, 3] = [100.0, 50.0, -30.0]
    for case in (1, 2):
        for side in (0, 1):
            name = f"LungCT_{case:04d}_{side:04d}"
            data = generator.integers(-1000, 400, (12, 14, 10)).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(data, affine), root / "imagesTr" / f"{name}.nii.gz")
            nibabel.save(
                nibabel.Nifti1Image((data > -500).astype(np.uint8), affine), root / "masksTr" / f"{name}.nii.gz"
            )
            nibabel.save(
                nibabel.Nifti1Image((data > 0).astype(np.uint8), affine), root / "labelsTr" / f"{name}.nii.gz"
            )
            np.savetxt(root / "keypointsTr" / f"{name}.csv", generator.uniform(1, 9, (7, 3)), delimiter=",")
    landmarks = generator.uniform(1, 9, (2, 5, 3)).round(3)
    for side in (0, 1):
        np.savetxt(root / "landmarksTr" / f"LungCT_0001_{side:04d}.csv", landmarks[side], delimiter=",", fmt="%.3f")
    pairs = [
        {"fixed": f"./imagesTr/LungCT_{c:04d}_0000.nii.gz", "moving": f"./imagesTr/LungCT_{c:04d}_0001.nii.gz"}
        for c in (1, 2)
    ]
    content = {
        "name": "LungCT",
        "tensorImageShape": {"0": [12, 14, 10]},
        "numRegistration_val": 1,
        "registration_val": pairs[:1],
        "training_paired_images": pairs,
    }
    (root / "LungCT_dataset.json").write_text(json.dumps(content))
    return landmarks[0], landmarks[1]


def test_learn2reg_points_are_voxels_of_the_array_as_nibabel_loads_it(tmp_path: Path) -> None:
    fixed, moving = write_learn2reg(tmp_path)
    (case,) = find_cases(f"learn2reg:{tmp_path}")
    assert (case.name, case.data_set) == ("LungCT_0001", "LungCT")
    data = case.load()
    assert [points.kind for points in data.sets] == ["landmarks", "keypoints"]
    image = nibabel.load(tmp_path / "imagesTr/LungCT_0001_0000.nii.gz")
    np.testing.assert_allclose(data.sets[0].fixed.positions, nibabel.affines.apply_affine(image.affine, fixed))
    np.testing.assert_allclose(data.sets[0].moving.positions, nibabel.affines.apply_affine(image.affine, moving))
    # What the challenge computes for a field of zeros, from voxels and the spacing of the moving scan.
    challenge = np.linalg.norm((fixed - moving) * [1.75, 1.25, 1.75], axis=1)
    ours = np.linalg.norm(data.sets[0].fixed.positions - data.sets[0].moving.positions, axis=1)
    np.testing.assert_allclose(ours, challenge)
    stored = store_case(case, tmp_path / "stored")
    assert stored.mask is not None
    assert stored.mask.name == "LungCT_0001_0000.nii.gz"
    assert stored.labels is not None
    assert len(stored.asked) == 12
    first, second = stored.split(stored.asked.positions)
    np.testing.assert_array_equal(first.positions, stored.sets[0].fixed.positions)
    np.testing.assert_array_equal(second.positions, stored.sets[1].fixed.positions)


def test_learn2reg_has_several_lists_of_pairs(tmp_path: Path) -> None:
    write_learn2reg(tmp_path)
    assert [case.name for case in find_cases(str(tmp_path), split="training_paired_images")] == [
        "LungCT_0001",
        "LungCT_0002",
    ]
    with pytest.raises(OptionsError, match="it has registration_val, training_paired_images"):
        find_cases(str(tmp_path), split="registration_test")


def test_a_damaged_learn2reg_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no \*_dataset.json"):
        find_cases(f"learn2reg:{tmp_path}")
    write_learn2reg(tmp_path)
    path = tmp_path / "landmarksTr/LungCT_0001_0001.csv"
    path.write_text(path.read_text(encoding="utf-8").rpartition("\n")[0].rpartition("\n")[0] + "\n")
    with pytest.raises(PointsError, match=r"has 5 points, .* has 4"):
        find_cases(str(tmp_path))[0].load()
    (tmp_path / "LungCT_dataset.json").write_text("{")
    with pytest.raises(OptionsError, match="is not JSON"):
        find_cases(str(tmp_path))


# ---------------------------------------------------------------------- DIR-Lab


def write_dirlab(
    root: Path, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch, *, collection: str, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """One case in the exact format, with a smaller shape put into the table."""
    kind = COLLECTIONS[collection]
    monkeypatch.setitem(kind.shapes, number, shape)  # type: ignore[arg-type]
    generator = np.random.default_rng(number)
    if collection == "dirlab-4dct":
        pack = root / f"Case{number}Pack"
        images, points = pack / "Images", pack / ("ExtremePhases" if number < 6 else "extremePhases")
        names = (f"case{number}_T00-ssm.img", f"case{number}_T50-ssm.img")
        texts = tuple(f"case{number}_dirLab300_T{phase}_xyz.txt" for phase in ("00", "50"))
    else:
        images = points = root / f"copd{number}" / f"copd{number}"
        names = (f"copd{number}_iBHCT.img", f"copd{number}_eBHCT.img")
        texts = (f"copd{number}_300_iBH_xyz_r1.txt", f"copd{number}_300_eBH_xyz_r1.txt")
    images.mkdir(parents=True)
    points.mkdir(parents=True, exist_ok=True)
    stored = generator.integers(0, 2000, shape[::-1]).astype("<i2")
    stored[0, 0, 0] = 13400
    for name in names:
        stored.tofile(images / name)
    landmarks = generator.integers(1, np.array(shape) + 1, (2, 30, 3))
    for text, places in zip(texts, landmarks, strict=True):
        (points / text).write_text("".join("\t".join(map(str, row)) + "\n" for row in places))
    return stored, landmarks


@pytest.mark.parametrize(("collection", "number"), [("dirlab-4dct", 2), ("dirlab-4dct", 8), ("dirlab-copd", 1)])
def test_dirlab_is_read_as_it_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collection: str, number: int
) -> None:
    shape = (9, 8, 7)
    stored, landmarks = write_dirlab(tmp_path, shape, monkeypatch, collection=collection, number=number)
    (case,) = find_cases(f"{collection}:{tmp_path}")
    data = case.load()
    scan = data.fixed
    assert not isinstance(scan, Path)
    assert scan.grid.shape == shape
    np.testing.assert_allclose(scan.grid.spacing, COLLECTIONS[collection].spacings[number])
    assert scan.grid.orientation == "LPS"
    # x runs fastest, 1024 is subtracted, absurd values are clipped.
    assert scan.data[3, 2, 1] == stored[1, 2, 3] - 1024
    assert scan.data[0, 0, 0] == 3071
    (points,) = data.sets
    # A landmark counts from 1: it lies in the voxel before.
    np.testing.assert_allclose(scan.grid.world_to_index(points.fixed.positions), landmarks[0] - 1, atol=1e-9)
    np.testing.assert_allclose(scan.grid.world_to_index(points.moving.positions), landmarks[1] - 1, atol=1e-9)
    # Errors in mm are those of voxels times the spacing, in whatever direction the axes grow.
    expected = np.linalg.norm((landmarks[0] - landmarks[1]) * scan.grid.spacing, axis=1)
    for orientation in ("LPS", "LPI", "RAS"):
        (turned,) = find_cases(f"{collection}:{tmp_path}", orientation=orientation)
        (known,) = turned.load().sets
        moved = np.linalg.norm(known.fixed.positions - known.moving.positions, axis=1)
        np.testing.assert_allclose(moved, expected)


def test_counting_from_zero_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dirlab(tmp_path, (9, 8, 7), monkeypatch, collection="dirlab-copd", number=3)
    (path,) = tmp_path.rglob("*iBH_xyz_r1.txt")
    path.write_text("0 4 4\n" * 30)
    with pytest.raises(MeddiftError, match="counted from 1 the first voxel is 1"):
        find_cases(f"dirlab-copd:{tmp_path}")[0].load()


def test_damaged_dirlab_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingFileError, match="holds no case of dirlab-copd"):
        find_cases(f"dirlab-copd:{tmp_path}")
    write_dirlab(tmp_path, (9, 8, 7), monkeypatch, collection="dirlab-copd", number=3)
    (image,) = tmp_path.rglob("*iBHCT.img")
    image.write_bytes(image.read_bytes()[:-2])
    with pytest.raises(ImageError, match="holds 503 voxels"):
        find_cases(f"dirlab-copd:{tmp_path}")[0].load()
    with pytest.raises(ImageError, match="left-right"):
        read_raw(image, (503, 1, 1), (1.0, 1.0, 1.0), orientation="SPL")
    image.unlink()
    with pytest.raises(MissingFileError, match="no file named like copd3_ibhct"):
        find_cases(f"dirlab-copd:{tmp_path}")


# ---------------------------------------------------------------------- pairs.csv and others


def test_pairs_may_have_several_kinds_of_points(tmp_path: Path) -> None:
    path = write_pairs(tmp_path, 1)
    header, line = path.read_text(encoding="utf-8").splitlines()
    path.write_text(f"{header},kind\n{line},landmarks\n{line},keypoints\n")
    (case,) = find_cases(str(path))
    assert [points.kind for points in case.load().sets] == ["landmarks", "keypoints"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("fixed_points", "points"), "lacks the columns fixed_points and has unknown"),
        (lambda text: text.replace("moving-0.mrk.json", "nowhere.csv"), "line 2: there is no"),
        (lambda text: text.replace("case-0", "../case"), "cannot be part of a file name"),
        (lambda text: text.replace("fixed-0.nii.gz", ""), "line 2: fixed is empty"),
        (lambda text: text.splitlines()[0], "names no pair"),
        (lambda text: text + text.splitlines()[1], "has landmarks already"),
        (lambda text: text + text.splitlines()[2].replace("case-1", "case-0"), "other scans than in line 2"),
    ],
    ids=["columns", "missing file", "name", "empty", "no pair", "twice", "other scans"],
)
def test_bad_pairs_are_refused(tmp_path: Path, change: object, message: str) -> None:
    path = write_pairs(tmp_path, 2)
    path.write_text(change(path.read_text(encoding="utf-8")))  # type: ignore[operator]
    with pytest.raises(MeddiftError, match=message):
        find_cases(str(path))


def test_points_outside_the_scan_are_a_mistake(tmp_path: Path) -> None:
    path = write_pairs(tmp_path, 1)
    points = json.loads((tmp_path / "fixed-0.mrk.json").read_text(encoding="utf-8"))
    for markup in points["markups"]:
        markup["coordinateSystem"] = "RAS" if markup["coordinateSystem"] == "LPS" else "LPS"
    (tmp_path / "fixed-0.mrk.json").write_text(json.dumps(points))
    with pytest.raises(ImageError, match="lie outside the fixed scan; are they in another frame"):
        store_case(find_cases(str(path))[0], tmp_path / "case")


def test_the_phantoms_are_the_same_everywhere() -> None:
    cases = phantom_breathing()
    assert [case.name for case in cases] == [f"phantom-{1000 + i}" for i in range(10)]
    assert [phantom_amplitude_mm(i) for i in (0, 9)] == [20.0, 40.0]
    assert phantom_amplitude_mm(4) == pytest.approx(20 + 20 * 4 / 9)
    assert {case.data_set for case in cases} == {"phantom-breathing"}


def test_unknown_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="is no data set"):
        find_cases("lungs")
    with pytest.raises(MissingFileError, match="there is no"):
        find_cases(f"deformed:{tmp_path / 'scan.nii.gz'}")


# ---------------------------------------------------------------------- fetching


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A web server on this machine, its folder, and what was asked of it."""
    root = tmp_path / "served"
    root.mkdir()
    asked: list[str] = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", root, asked
        running.shutdown()
        thread.join()


def served(url: str, sha256: str | None = None) -> DataSet:
    return DataSet("test", "", "", "", "", "test", (Archive(f"{url}/data.zip", "data.zip", sha256),))


def write_zip(path: Path, name: str = "set/readme.txt") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "hello")


def test_a_data_set_is_fetched_once_and_unpacked(server: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    url, root, asked = server
    write_zip(root / "data.zip")
    lines: list[str] = []
    fetch_data_set(served(url), tmp_path / "out", on_progress=lines.append)
    assert (tmp_path / "out/set/readme.txt").read_text(encoding="utf-8") == "hello"
    assert any(line.startswith("sha256 ") for line in lines)
    fetch_data_set(served(url), tmp_path / "out")
    assert asked == ["/data.zip"]


def test_a_changed_file_is_noticed(server: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    url, root, _ = server
    write_zip(root / "data.zip")
    with pytest.raises(OutputError, match="does not have the hash"):
        fetch_data_set(served(url, "0" * 64), tmp_path / "known")
    assert not (tmp_path / "known/data.zip").exists()
    fetch_data_set(served(url), tmp_path / "noted")
    # Damaged here, and meanwhile another file there: the hash that was noted says so.
    (tmp_path / "noted/data.zip").write_bytes(b"damaged")
    write_zip(root / "data.zip", "other.txt")
    with pytest.raises(OutputError, match="does not have the hash"):
        fetch_data_set(served(url), tmp_path / "noted")


def test_what_cannot_be_fetched_is_said(server: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    url, root, _ = server
    with pytest.raises(MissingFileError, match="cannot download"):
        fetch_data_set(served(url), tmp_path / "out")
    (root / "data.zip").write_bytes(b"no zip file")
    with pytest.raises(OutputError, match="not a zip file"):
        fetch_data_set(served(url), tmp_path / "out")
    write_zip(root / "data.zip", "../outside.txt")
    with pytest.raises(OutputError, match="outside"):
        fetch_data_set(served(url), tmp_path / "slip")
    assert not (tmp_path / "outside.txt").exists()
    (phantoms,) = [known for known in DATA_SETS if known.name == "phantom-breathing"]
    with pytest.raises(OptionsError, match="nothing has to be downloaded"):
        fetch_data_set(phantoms, tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        fetch_data_set(served(url), tmp_path / "file/folder")
