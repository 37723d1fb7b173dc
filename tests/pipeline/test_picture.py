"""The picture: read back as pixels, because what counts is what is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meddift.errors import OptionsError, OutputError
from meddift.geometry import Grid
from meddift.matching import Matches
from meddift.matching.verdict import Reason
from meddift.pipeline.picture import choose_rows, draw_matches, save_picture
from meddift.points import Points
from meddift.volume import Volume


def matches_of(verdicts: list[str], similarity: list[float] | None = None) -> Matches:
    n = len(verdicts)
    here = np.zeros((n, 3))
    there = np.where(np.array([v == "outside" for v in verdicts])[:, None], np.nan, here)
    return Matches(
        fixed=Points(here),
        moving=Points(there),
        similarity=np.array(similarity if similarity is not None else np.linspace(0.1, 0.9, n)),
        margin=np.full(n, 0.1),
        inverse_error_mm=np.full(n, 1.0),
        verdict=tuple(verdicts),  # type: ignore[arg-type]
        reasons=tuple(() if v == "ok" else (Reason("rival", "said why"),) for v in verdicts),
    )


def head_scan(orientation: str = "RAS", spacing: tuple[float, float, float] = (4, 4, 4)) -> Volume:
    """Air, with bright blocks of different sizes to the patient's right, front and top."""
    shape = tuple(round(200 / s) for s in spacing)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) * s / 2 for n, s in zip(shape, spacing, strict=True)]
    grid = Grid(shape, affine)
    x, y, z = np.moveaxis(grid.voxel_centers(), -1, 0)
    data = np.full(shape, -1000, np.int16)
    data[(np.abs(x - 45) < 12) & (np.abs(y) < 12) & (np.abs(z) < 12)] = 1000  # right
    data[(np.abs(y - 45) < 8) & (np.abs(x) < 8) & (np.abs(z) < 8)] = 1000  # front
    data[(np.abs(z - 45) < 16) & (np.abs(x) < 16) & (np.abs(y) < 16)] = 1000  # top
    return Volume(data, grid).reoriented(orientation)


def bright_areas(path: Path) -> list[list[tuple[float, float, int]]]:
    """For each of the six panels of the first row: middle (across, up; -1 to 1) and area of each bright block."""
    from scipy import ndimage

    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    # Slices are grey; window -1000 to 400 shows the blocks as pure white.
    white = (pixels.min(axis=2) > 250) & (np.ptp(pixels, axis=2) == 0)
    labelled, _ = ndimage.label(white)
    panels: list[list[tuple[float, float, int]]] = [[] for _ in range(6)]
    inch = 120
    for region in ndimage.find_objects(labelled):
        area = int((labelled[region] > 0).sum())
        if area < 120:  # letters
            continue
        row = (region[0].start + region[0].stop) / 2 / inch - (0.62 + 0.36)
        column = (region[1].start + region[1].stop) / 2 / inch - 0.12
        if not 0 < row < 2.05:
            continue
        index = int(column // 2.11) if column < 6.33 else 3 + int((column - 6.33 - 0.26) // 2.11)
        left = index * 2.11 + (0.26 if index >= 3 else 0)
        panels[index].append(((column - left) / 1.025 - 1, 1 - row / 1.025, area))
    return panels


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "IPL"])
def test_the_patient_is_seen_as_radiologists_look(tmp_path: Path, orientation: str) -> None:
    path = tmp_path / "picture.png"
    save_picture(draw_matches(head_scan(), head_scan(orientation), matches_of(["ok"])), path)
    panels = bright_areas(path)
    for offset in (0, 3):
        axial, coronal, sagittal = panels[offset : offset + 3]
        # The block on the right is on the left of the picture; the sizes tell the blocks apart.
        assert {(round(a, 1), round(u, 1)) for a, u, _ in axial} == {(-0.6, 0.0), (0.0, 0.6)}
        assert {(round(a, 1), round(u, 1)) for a, u, _ in coronal} == {(-0.6, 0.0), (0.0, 0.6)}
        # Seen from the left, the front is on the left of the picture.
        assert {(round(a, 1), round(u, 1)) for a, u, _ in sagittal} == {(-0.6, 0.0), (0.0, 0.6)}
        front = min(area for a, u, area in axial if u > 0.3)
        top = min(area for a, u, area in coronal if u > 0.3)
        right = min(area for a, u, area in axial if a < -0.3)
        assert front < right < top


def test_proportions_are_those_of_the_body_not_of_the_voxels(tmp_path: Path) -> None:
    isotropic, flat = tmp_path / "isotropic.png", tmp_path / "flat.png"
    scan = head_scan()
    save_picture(draw_matches(scan, scan, matches_of(["ok"])), isotropic)
    save_picture(draw_matches(head_scan(spacing=(2, 2, 8)), scan, matches_of(["ok"])), flat)
    square, stretched = bright_areas(isotropic)[1], bright_areas(flat)[1]
    for (a, u, area), (b, v, other) in zip(sorted(square), sorted(stretched), strict=True):
        assert (a, u) == pytest.approx((b, v), abs=0.06)
        assert other == pytest.approx(area, rel=0.3)


def test_the_true_place_is_ringed_at_its_distance(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    scan = head_scan()
    save_picture(draw_matches(scan, scan, matches_of(["ok"]), truth=Points(np.array([[-30.0, 0, 0]]))), path)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    ring = (np.abs(pixels - [0x36, 0xD1, 0xFF]).sum(axis=2) < 60).nonzero()
    inch = 120
    column = (ring[1] / inch) - 0.12 - 6.33 - 0.26
    axial = column < 2.05
    # 30 mm to the patient's left: 30 / 75 of half a panel to the right of its middle.
    assert column[axial].mean() / 1.025 - 1 == pytest.approx(0.4, abs=0.02)


def test_points_without_an_answer_are_drawn_too(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    scan = head_scan()
    save_picture(draw_matches(scan, scan, matches_of(["ok", "outside"]), count=2), path)
    save_picture(draw_matches(scan, scan, matches_of(["outside"]), truth=Points(np.zeros((1, 3)))), path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def test_scans_without_hounsfield_units_get_their_own_window(tmp_path: Path) -> None:
    scan = head_scan()
    magnetic = Volume((scan.data.astype(np.float32) + 1000) * 0.01, scan.grid)
    path = tmp_path / "picture.png"
    save_picture(draw_matches(magnetic, magnetic, matches_of(["ok"])), path)
    assert len(bright_areas(path)[0]) == 2


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    scan = head_scan()
    for name in ("a.png", "b.png"):
        save_picture(draw_matches(scan, scan, matches_of(["uncertain"])), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_bad_arguments_leave_nothing_behind(tmp_path: Path) -> None:
    scan = head_scan()
    figure = draw_matches(scan, scan, matches_of(["ok"]))
    with pytest.raises(OptionsError, match=r"\.png"):
        save_picture(figure, tmp_path / "picture.jpg")
    with pytest.raises(OptionsError, match="at least one"):
        draw_matches(scan, scan, matches_of(["ok"]), count=0)
    with pytest.raises(OutputError, match="does not exist"):
        save_picture(figure, tmp_path / "missing" / "picture.png")
    assert list(tmp_path.iterdir()) == []


class TestChoice:
    """Which points are drawn."""

    def test_every_verdict_is_shown_before_one_is_shown_twice(self) -> None:
        verdicts = ["ok"] * 90 + ["uncertain"] * 3 + ["outside"] * 2
        chosen = choose_rows(matches_of(verdicts), 4)
        assert [verdicts[i] for i in chosen] == ["ok", "ok", "uncertain", "outside"]

    def test_best_and_worst_of_a_verdict_are_among_them(self) -> None:
        chosen = choose_rows(matches_of(["ok"] * 5, [0.3, 0.9, 0.1, 0.5, 0.7]), 3)
        assert chosen == [1, 3, 2]

    def test_fewer_points_than_asked_for(self) -> None:
        assert sorted(choose_rows(matches_of(["ok", "outside"]), 10)) == [0, 1]
