"""Where the patient is, and images and labels through transforms, against SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from meddift.body import body_of
from meddift.errors import GeometryError
from meddift.geometry import AffineTransform, DisplacementField, Grid
from meddift.io.itk_transforms import field_to_itk
from meddift.registration import warp_labels, warp_volume
from meddift.volume import Volume


def chest(cut: int) -> Volume:
    """A body with two lungs; `cut` columns of it are in view."""
    data = np.full((80, 60, 12), -1000, dtype=np.int16)
    x, y = np.meshgrid(np.arange(80) - 40, np.arange(60) - 30, indexing="ij")
    data[(x / 36) ** 2 + (y / 24) ** 2 < 1] = 40
    for middle in (-16, 16):
        data[((x - middle) / 11) ** 2 + (y / 15) ** 2 < 1] = -850
    return Volume(data[:cut], Grid((cut, 60, 12), np.diag([4.0, 4.0, 4.0, 1.0])))


def test_lungs_belong_to_the_body_even_where_the_view_cuts_through_them() -> None:
    whole, cut = body_of(chest(80)), body_of(chest(20))
    assert whole.data[24, 30, 6]
    assert whole.data[56, 30, 6]
    assert cut.data[18, 30, 6]  # open to the side
    assert not cut.data[19, 2, 6]  # air in front of the patient stays air
    assert not whole.data[0, 30, 6]


def test_without_a_body_everything_counts() -> None:
    nothing = Volume(np.full((10, 10, 10), -1000, np.int16), Grid((10, 10, 10), np.diag([2.0, 2, 2, 1])))
    assert body_of(nothing).data.all()


def as_sitk(volume: Volume) -> sitk.Image:
    image = sitk.GetImageFromArray(volume.data.transpose(2, 1, 0))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.grid.affine
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(volume.grid.spacing.tolist())
    image.SetDirection((affine[:3, :3] / volume.grid.spacing).ravel().tolist())
    return image


def scene() -> tuple[Volume, Grid, DisplacementField, sitk.Transform]:
    generator = np.random.default_rng(0)
    moving = Volume(
        generator.integers(-1000, 400, (16, 18, 14)).astype(np.int16),
        Grid((16, 18, 14), np.array([[0, -2.0, 0, 30], [2.5, 0, 0, -10], [0, 0, 3.0, 5], [0, 0, 0, 1]])),
    )
    fixed = Grid((15, 13, 12), np.array([[-2.2, 0, 0, 28], [0, 2.4, 0, -8], [0, 0, 2.9, 7], [0, 0, 0, 1]]))
    world = fixed.voxel_centers()
    shift = np.stack([np.sin(world[..., 1] / 9), 2 + 0 * world[..., 0], world[..., 0] / 30])
    field = DisplacementField(shift, fixed)
    image = field_to_itk(field, Path("memory"), dtype=np.dtype(np.float64))
    return moving, fixed, field, sitk.DisplacementFieldTransform(image)


def test_images_are_those_of_simpleitk() -> None:
    moving, fixed, field, transform = scene()
    ours = warp_volume(moving, field, fixed, fill=-1024)
    reference = as_sitk(Volume(np.zeros(fixed.shape, np.int16), fixed))
    theirs = sitk.GetArrayFromImage(
        sitk.Resample(as_sitk(moving), reference, transform, sitk.sitkLinear, -1024.0)
    ).transpose(2, 1, 0)
    # SimpleITK gives the fill value from the middle of the outermost voxel on, we from its outer face on.
    both = (ours.data != -1024) & (theirs != -1024)
    assert both.mean() > 0.3
    assert np.abs(ours.data[both].astype(int) - theirs[both]).max() <= 1
    assert ours.data.dtype == np.int16


def test_labels_stay_whole() -> None:
    moving, fixed, field, transform = scene()
    labels = Volume((moving.data % 4).astype(np.uint8), moving.grid)
    ours = warp_labels(labels, field, fixed)
    reference = as_sitk(Volume(np.zeros(fixed.shape, np.uint8), fixed))
    theirs = sitk.GetArrayFromImage(
        sitk.Resample(as_sitk(labels), reference, transform, sitk.sitkNearestNeighbor, 0)
    ).transpose(2, 1, 0)
    assert set(np.unique(ours.data)) <= {0, 1, 2, 3}
    assert (ours.data == theirs).mean() > 0.99


def test_the_default_fill_is_the_least_value() -> None:
    moving, fixed, _, _ = scene()
    far = np.eye(4)
    far[0, 3] = 5000
    assert (warp_volume(moving, AffineTransform(far), fixed).data == moving.data.min()).all()


def test_whole_numbers_do_not_wrap_around() -> None:
    moving, fixed, field, _ = scene()
    bright = Volume(np.where(moving.data > 0, 255, 0).astype(np.uint8), moving.grid)
    found = warp_volume(bright, field, fixed, fill=0)
    exact = warp_volume(Volume(bright.data.astype(np.float64), moving.grid), field, fixed, fill=0)
    np.testing.assert_array_equal(found.data, np.rint(exact.data))
    for warp, fill in ((warp_volume, -1000), (warp_labels, 300), (warp_labels, np.nan)):
        with pytest.raises(GeometryError, match="whole numbers from 0 to 255"):
            warp(bright, field, fixed, fill=fill)


def test_labels_stored_as_floats_take_whole_numbers_only() -> None:
    moving, fixed, field, _ = scene()
    labels = Volume((moving.data % 4).astype(np.float32), moving.grid)
    assert set(np.unique(warp_labels(labels, field, fixed, fill=9).data)) <= {0, 1, 2, 3, 9}
    for fill in (np.nan, 0.5):
        with pytest.raises(GeometryError, match="whole numbers"):
            warp_labels(labels, field, fixed, fill=fill)
