"""Slices of a tilted gantry lie where they were taken; rounded positions are called rounded."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_files import ORIGIN, SHAPE, SPACING, above, save, series
from dicom_files import image as dicom_image
from dicom_files import stored as stored_values
from scans import rotation

from meddift.errors import GeometryError, ImageError
from meddift.io import describe_image, read_volume

CENTER = np.array([8.3, -6.1, 131.7])  # LPS mm
SIGMA = 6.0
COLUMNS, ROWS, SLICES = 44, 40, 24


def _blob(places: np.ndarray) -> np.ndarray:
    """HU of a smooth ball in air, at LPS positions (..., 3)."""
    return -1000 + 1500 * np.exp(-((places - CENTER) ** 2).sum(axis=-1) / (2 * SIGMA**2))


def _scan(folder, *, turn, step):
    """The ball as slices see it whose planes are those of `turn` and whose places advance by `step`."""
    spacing = np.array([0.9, 0.8])
    middle = CENTER + turn @ [1.2, -0.7, 0.4]
    first = middle - (SLICES - 1) / 2 * step - turn[:, :2] @ (spacing * (np.array([COLUMNS, ROWS]) - 1) / 2)
    pixels = np.stack(np.meshgrid(np.arange(COLUMNS), np.arange(ROWS), indexing="ij"), axis=-1) * spacing
    for k in range(SLICES):
        places = first + k * step + pixels @ turn[:, :2].T
        values = np.rint(_blob(places) + 1024).astype(np.uint16)
        orientation = [f"{value:.10g}" for value in turn[:, :2].T.ravel()]
        one = dicom_image(values, first + k * step, ImageOrientationPatient=orientation, InstanceNumber=k + 1)
        save(one, folder / f"{k:02d}.dcm")
    return folder


TILTS = [
    # The gantry tilted about the left-right axis while the table moves along z, as in CT of the head.
    (rotation((12, 0, 0)), np.array([0, 0, 2.5]), 12),
    (rotation((-27.5, 0, 0)), np.array([0, 0, 1.25]), 27.5),
    (rotation((0.5, 0, 0)), np.array([0, 0, 2.5]), 0.5),
    # A gantry turned about z is no tilt of CT, but the arithmetic is the same in both directions of the plane.
    (rotation((8, 10, 3)), np.array([0, 0, 2.5]), None),
    # Sagittal planes, taken from right to left.
    (rotation((0, 90, 0)), rotation((0, 90, 0)) @ [0.5, -0.3, 2.0], None),
]


@pytest.mark.parametrize(("turn", "step", "degrees"), TILTS)
def test_a_tilted_gantry_is_read_onto_orthogonal_axes(tmp_path, turn, step, degrees):
    folder = _scan(tmp_path / "scan", turn=turn, step=step)
    volume = read_volume(folder)
    assert volume.grid.shear < 1e-9
    angle = np.degrees(np.arccos(abs(step @ turn[:, 2]) / np.linalg.norm(step)))
    assert degrees is None or angle == pytest.approx(degrees)
    note = f"gantry was tilted by {angle:.3g} degrees"
    assert any(note in one for one in volume.notes)
    told = describe_image(folder)
    assert told["details"]["gantry_tilt_degrees"] == pytest.approx(angle, abs=1e-3)
    assert told["shape"] == list(volume.data.shape)
    assert any(note in one for one in told["notes"])
    # The middle of the ball, weighted by its brightness, lies where it was drawn.
    index = np.stack(np.meshgrid(*map(np.arange, volume.data.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    weight = np.maximum(volume.data.ravel() + 1000.0 - 30, 0)
    middle = (volume.grid.index_to_world(index) * weight[:, None]).sum(axis=0) / weight.sum()
    np.testing.assert_allclose(middle * [-1, -1, 1], CENTER, atol=0.1)
    # Values, too: linear interpolation of a ball of 6 mm on 0.9 mm errs by h^2/8 times the second derivative.
    points = CENTER + np.random.default_rng(1).normal(size=(200, 3)) * 4
    largest = (0.9**2 / 4 + np.linalg.norm(step) ** 2 / 8) * 1500 / SIGMA**2 + 2
    assert np.abs(volume.at(points * [-1, -1, 1]) - _blob(points)).max() < largest


def test_a_shift_of_whole_pixels_changes_no_value(tmp_path):
    """By hand: each slice lies one row (0.8 mm) further than the one before, and no column further."""
    places = [np.add(ORIGIN, (0, k * SPACING[1], k * SPACING[2])) for k in range(SHAPE[2])]
    volume = read_volume(series(tmp_path, positions=places))
    columns, rows, slices = SHAPE
    expected = np.full((columns, rows + slices - 1, slices), 3 - 1024)
    for k in range(slices):
        expected[:, k : k + rows, k] = stored_values()[..., k].astype(int) - 1024
    np.testing.assert_array_equal(volume.data, expected)
    np.testing.assert_allclose(
        volume.grid.affine, [[-0.9, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 100], [0, 0, 0, 1]]
    )
    backwards = [np.add(ORIGIN, (0, -k * SPACING[1], k * SPACING[2])) for k in range(SHAPE[2])]
    volume = read_volume(series(tmp_path / "back", positions=backwards))
    np.testing.assert_array_equal(volume.data[:, 5:, 0], stored_values()[..., 0].astype(int) - 1024)
    np.testing.assert_allclose(volume.grid.origin, [10, 20 + 5 * 0.8, 100])


def test_a_shift_that_no_gantry_makes(tmp_path):
    places = [np.add(ORIGIN, (0, 3.0 * k, k * SPACING[2])) for k in range(SHAPE[2])]
    with pytest.raises(GeometryError, match="more than any gantry"):
        read_volume(series(tmp_path, positions=places))


@pytest.mark.parametrize(
    ("unit", "step", "read"), [(0.1, 0.625, True), (0.1, 2.5, True), (0.5, 0.625, False), (1, 1.25, False)]
)
def test_rounded_positions(tmp_path, unit, step, read):
    """Read where slices stay within a tenth of a voxel of an even grid; called rounded in any case."""
    values = np.random.default_rng(0).integers(0, 2000, (8, 7, 20)).astype(np.uint16)
    exact = 100 + step * np.arange(20)
    places = [(-10, -20, np.rint(z / unit) * unit) for z in exact]
    folder = series(tmp_path, values=values, positions=places, SliceThickness=step)
    if not read:
        with pytest.raises(GeometryError, match=f"rounded to {unit:g} mm"):
            read_volume(folder)
        return
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.data, values.astype(int) - 1024)
    seen = volume.grid.index_to_world(np.stack([np.zeros(20), np.zeros(20), np.arange(20)], axis=1))[:, 2]
    assert np.abs(seen - exact).max() < 0.1 * step
    assert any("rounded" in note for note in volume.notes) == (step == 0.625)


def test_one_position_that_is_off_by_microns_is_no_tilt(tmp_path):
    places = [np.add(above(k), (0.003 if k == 5 else 0, 0, 0)) for k in range(SHAPE[2])]
    volume = read_volume(series(tmp_path, positions=places))
    np.testing.assert_allclose(volume.grid.spacing, SPACING, rtol=1e-6)
    assert "rounded" in volume.notes[0]
    assert "tilt" not in volume.notes[0]


def test_missing_slices_and_slices_that_are_there_twice_are_not_called_rounding(tmp_path):
    """On whole millimetres, where a gap could be mistaken for rounding."""
    places = [(-10, -20, 100 + k) for k in range(12)]
    values = np.zeros((8, 7, 12), np.uint16) + np.arange(12, dtype=np.uint16)
    with pytest.raises(GeometryError, match=r"2 mm between slices 5 and 6.*Slices are missing"):
        read_volume(series(tmp_path / "missing", values=values, positions=places, skip=(5,)))
    doubled = [(-10, -20, 100 + k // 2) for k in range(12)]
    with pytest.raises(ImageError, match="12 slices at only 6 places"):
        read_volume(series(tmp_path / "twice", values=values, positions=doubled))
