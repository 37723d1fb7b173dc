"""Transforms in files: every point must land where SimpleITK puts it."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from meddift.errors import MissingFileError, OptionsError, OutputError, TransformError
from meddift.geometry import AffineTransform, CompositeTransform, DisplacementField, Grid, Transform
from meddift.io.itk_transforms import ItkTransform
from meddift.io.transforms import read_transform, write_transform

SLOW_FIXTURES = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def oblique_grid(*, left_handed: bool = True, shape: tuple[int, int, int] = (7, 6, 5)) -> Grid:
    turn = Rotation.from_euler("zyx", [20, -35, 50], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.5 if left_handed else 1.5, 2.0, 3.0])
    affine[:3, 3] = [11.0, -40.0, 230.0]
    return Grid(shape, affine)


def interior_points(grid: Grid, count: int = 40) -> np.ndarray:
    index = np.random.default_rng(3).uniform(0, 1, (count, 3)) * (np.asarray(grid.shape) - 1)
    return grid.index_to_world(index)


def mapped_by_itk(transform: sitk.Transform, world_ras: np.ndarray) -> np.ndarray:
    """The independent truth: SimpleITK on LPS points, signs flipped by hand."""
    moved = [transform.TransformPoint((-x, -y, z)) for x, y, z in world_ras.tolist()]
    return np.array([(-x, -y, z) for x, y, z in moved])


def lps_field_image(grid: Grid, seed: int = 0) -> sitk.Image:
    """A random field made with SimpleITK calls only."""
    values = np.random.default_rng(seed).normal(0, 4, (*reversed(grid.shape), 3))
    image = sitk.GetImageFromArray(values, isVector=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetSpacing(np.linalg.norm(lps[:3, :3], axis=0).tolist())
    image.SetDirection((lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)).ravel().tolist())
    return image


def linear_transforms() -> list[sitk.Transform]:
    euler = sitk.Euler3DTransform((10.0, -20.0, 30.0), 0.3, -0.2, 0.5, (4.0, 5.0, -6.0))
    versor = sitk.VersorRigid3DTransform()
    versor.SetParameters((0.1, -0.2, 0.15, 3.0, 4.0, 5.0))
    versor.SetCenter((7.0, 8.0, 9.0))
    similarity = sitk.Similarity3DTransform()
    similarity.SetParameters((0.1, -0.2, 0.15, 3.0, 4.0, 5.0, 1.2))
    similarity.SetCenter((-7.0, 8.0, 90.0))
    affine = sitk.AffineTransform(
        (1.1, 0.2, 0.0, -0.1, 0.9, 0.05, 0.0, 0.1, 1.3), (1.0, -2.0, 3.0), (50.0, 60.0, -70.0)
    )
    scale = sitk.ScaleTransform(3, (1.1, 0.9, 1.3))
    scale.SetCenter((1.0, 2.0, 3.0))
    return [
        euler,
        versor,
        similarity,
        affine,
        scale,
        sitk.VersorTransform((0.0, 0.0, 1.0), 0.4),
        sitk.TranslationTransform(3, (1.0, -2.0, 3.0)),
        sitk.Transform(3, sitk.sitkIdentity),
    ]


class TestLinear:
    @pytest.mark.parametrize("number", range(8))
    @pytest.mark.parametrize("suffix", [".tfm", ".txt", ".h5", ".hdf5", ".mat"])
    def test_maps_points_as_itk_does(self, tmp_path: Path, number: int, suffix: str) -> None:
        truth = linear_transforms()[number]
        if suffix == ".mat" and truth.GetTransformEnum() == sitk.sitkIdentity:
            pytest.skip("a MATLAB file cannot hold a transform without parameters")
        path = tmp_path / f"transform{suffix}"
        sitk.WriteTransform(truth, str(path))
        points = interior_points(oblique_grid())
        read = read_transform(path)
        assert isinstance(read, AffineTransform)
        np.testing.assert_allclose(read.apply(points), mapped_by_itk(truth, points), atol=1e-6)

    @pytest.mark.parametrize("suffix", [".tfm", ".h5"])
    def test_what_is_written_means_the_same_to_itk(self, tmp_path: Path, suffix: str) -> None:
        matrix = np.array([[1.1, 0.2, 0, 5], [-0.1, 0.9, 0.05, -6], [0, 0.1, 1.3, 7], [0, 0, 0, 1]])
        path = tmp_path / f"affine{suffix}"
        write_transform(AffineTransform(matrix), path)
        points = interior_points(oblique_grid())
        expected = nibabel.affines.apply_affine(matrix, points)
        np.testing.assert_allclose(mapped_by_itk(sitk.ReadTransform(str(path)), points), expected, atol=1e-6)
        np.testing.assert_allclose(read_transform(path).apply(points), expected, atol=1e-6)

    def test_sign_of_a_known_shift(self, tmp_path: Path) -> None:
        # 5 mm to the patient's left is +x in LPS and -x in RAS; 3 mm to the front is -y in LPS and +y in RAS.
        path = tmp_path / "shift.tfm"
        sitk.WriteTransform(sitk.TranslationTransform(3, (5.0, -3.0, 2.0)), str(path))
        np.testing.assert_allclose(read_transform(path).apply([[10.0, 20.0, 30.0]]), [[5.0, 23.0, 32.0]])


class TestField:
    @pytest.mark.parametrize("left_handed", [True, False])
    @pytest.mark.parametrize("suffix", [".h5", ".nii.gz", ".nii", ".nrrd", ".mha"])
    def test_reads_as_itk_does(self, tmp_path: Path, suffix: str, left_handed: bool) -> None:
        grid = oblique_grid(left_handed=left_handed)
        path = tmp_path / f"field{suffix}"
        truth = sitk.DisplacementFieldTransform(lps_field_image(grid))
        if suffix == ".h5":
            sitk.WriteTransform(truth, str(path))
        else:
            sitk.WriteImage(lps_field_image(grid), str(path))
            # What ITK itself makes of the file, rounding in the header included.
            truth = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
        read = read_transform(path)
        assert isinstance(read, DisplacementField)
        points = interior_points(grid)
        # NIfTI keeps its grid twice, in float32: ITK takes the quaternion here, meddift the matrix.
        atol = 1e-5 if suffix.startswith(".nii") else 1e-6
        np.testing.assert_allclose(read.apply(points), mapped_by_itk(truth, points), atol=atol)

    @pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".nii.gz", ".nii", ".nrrd", ".mha"])
    def test_what_is_written_means_the_same_to_itk(self, tmp_path: Path, suffix: str) -> None:
        grid = oblique_grid()
        displacement = np.random.default_rng(1).normal(0, 4, (3, *grid.shape)).astype(np.float32)
        field = DisplacementField(displacement, grid)
        path = tmp_path / f"field{suffix}"
        write_transform(field, path)
        if suffix in (".h5", ".hdf5"):
            truth = sitk.ReadTransform(str(path))
            assert truth.GetTransformEnum() == sitk.sitkDisplacementField
        else:
            truth = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
        points = interior_points(grid)
        # NIfTI keeps the grid in float32, which moves its centres by some 1e-5 mm.
        atol = 1e-3 if suffix.startswith(".nii") else 1e-6
        np.testing.assert_allclose(mapped_by_itk(truth, points), field.apply(points), atol=atol)
        again = read_transform(path)
        np.testing.assert_allclose(again.apply(points), field.apply(points), atol=atol)

    def test_nifti_header_is_the_one_that_ants_and_slicer_expect(self, tmp_path: Path) -> None:
        grid = oblique_grid()
        displacement = np.zeros((3, *grid.shape), dtype=np.float32)
        displacement[0], displacement[1], displacement[2] = -5.0, 3.0, 2.0  # RAS
        write_transform(DisplacementField(displacement, grid), tmp_path / "Warp.nii.gz")
        image = nibabel.load(tmp_path / "Warp.nii.gz")
        assert image.header["dim"].tolist()[:6] == [5, *grid.shape, 1, 3]
        assert int(image.header["intent_code"]) == 1007
        assert image.header.get_data_dtype() == np.float32
        np.testing.assert_allclose(image.affine, grid.affine, atol=1e-4)
        np.testing.assert_allclose(np.asarray(image.dataobj)[2, 3, 1, 0], [5.0, -3.0, 2.0])  # LPS

    @pytest.mark.parametrize(("intent", "sign"), [(1007, 1.0), (1006, -1.0)])
    def test_intent_decides_the_sign_as_in_itk(self, tmp_path: Path, intent: int, sign: float) -> None:
        values = np.zeros((4, 5, 6, 1, 3), dtype=np.float32)
        values[...] = (5.0, -3.0, 2.0)
        image = nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0]))
        image.header.set_intent(intent)
        nibabel.save(image, tmp_path / "field.nii")
        moved = read_transform(tmp_path / "field.nii").apply([[2.0, 2.0, 2.0]])
        np.testing.assert_allclose(moved, [[2.0 - sign * 5.0, 2.0 + sign * 3.0, 4.0]], atol=1e-6)

    def test_a_field_that_asks_for_scaling(self, tmp_path: Path) -> None:
        """scl_slope and scl_inter count for displacements as for intensities (NIfTI-1 standard)."""
        values = np.random.default_rng(0).normal(0, 2, (4, 5, 6, 1, 3)).astype(np.float32)
        image = nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0]))
        image.header.set_intent(1007)
        nibabel.save(image, tmp_path / "field.nii")
        raw = bytearray((tmp_path / "field.nii").read_bytes())
        raw[112:120] = np.array([0.5, 1.0], "<f4").tobytes()
        (tmp_path / "field.nii").write_bytes(bytes(raw))
        moved = read_transform(tmp_path / "field.nii").apply([[4.0, 6.0, 8.0]])
        expected = np.array([4.0, 6.0, 8.0]) + (values[2, 3, 4, 0] * 0.5 + 1.0) * [-1, -1, 1]
        np.testing.assert_allclose(moved, [expected], atol=1e-6)

    def test_resampling_and_points_agree_on_the_direction(self, tmp_path: Path) -> None:
        """A bright voxel of the moving image is pulled to the fixed point that the transform takes to it."""
        grid = Grid((20, 20, 20), np.eye(4))
        displacement = np.zeros((3, *grid.shape))
        displacement[0] = 4.0
        write_transform(DisplacementField(displacement, grid), tmp_path / "warp.h5")
        moving = np.zeros(grid.shape, dtype=np.float32)
        moving[12, 10, 9] = 1.0
        image = sitk.GetImageFromArray(np.ascontiguousarray(moving.transpose(2, 1, 0)))
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # RAS axes, seen from LPS
        warped = sitk.GetArrayFromImage(sitk.Resample(image, image, sitk.ReadTransform(str(tmp_path / "warp.h5"))))
        fixed_point = np.argwhere(warped.transpose(2, 1, 0) > 0.99)
        assert fixed_point.tolist() == [[8, 10, 9]]
        np.testing.assert_allclose(read_transform(tmp_path / "warp.h5").apply(fixed_point), [[12, 10, 9]])

    def test_dust_in_the_direction_does_no_harm(self, tmp_path: Path) -> None:
        """Entries such as 1e-310 make ITK's own inverse of the direction wrong by millimetres."""
        rng = np.random.default_rng(0)
        for exponent in range(-323, -290):
            affine = np.diag([*rng.uniform(0.3, 6, 3), 1.0])
            affine[0, 2] = affine[2, 0] = -float(f"{rng.uniform(1, 9):.3f}e{exponent}")
            grid = Grid((2, 2, 2), affine)
            field = DisplacementField(rng.normal(0, 3, (3, 2, 2, 2)), grid)
            write_transform(field, tmp_path / "dust.h5")
            points = grid.index_to_world(rng.uniform(0.1, 0.9, (5, 3)))
            itk = sitk.ReadTransform(str(tmp_path / "dust.h5"))
            np.testing.assert_allclose(mapped_by_itk(itk, points), field.apply(points), atol=1e-6)

    def test_single_voxel_wide_fields_are_read(self, tmp_path: Path) -> None:
        values = np.full((1, 1, 4, 3), 2.5)
        image = sitk.GetImageFromArray(values, isVector=True)
        sitk.WriteImage(image, str(tmp_path / "thin.mha"))
        np.testing.assert_allclose(read_transform(tmp_path / "thin.mha").apply([[0.0, 0.0, 0.0]]), [[-2.5, -2.5, 2.5]])


class TestComposite:
    @pytest.mark.parametrize("suffix", [".h5", ".tfm"])
    def test_last_added_is_applied_first(self, tmp_path: Path, suffix: str) -> None:
        composite = sitk.CompositeTransform(3)
        for part in linear_transforms()[:4]:
            composite.AddTransform(part)
        path = tmp_path / f"composite{suffix}"
        sitk.WriteTransform(composite, str(path))
        read = read_transform(path)
        assert isinstance(read, CompositeTransform)
        assert len(read.parts) == 4
        points = interior_points(oblique_grid())
        np.testing.assert_allclose(read.apply(points), mapped_by_itk(composite, points), atol=1e-6)

    def test_affine_then_field_round_trip_and_agree_with_itk(self, tmp_path: Path) -> None:
        grid = oblique_grid()
        shift = np.eye(4)
        shift[:3, 3] = grid.affine[:3, 0] * 0.25
        field = read_field(tmp_path, grid)
        ours = CompositeTransform((AffineTransform(shift), CompositeTransform((field,))))
        write_transform(ours, tmp_path / "both.h5")
        itk = sitk.ReadTransform(str(tmp_path / "both.h5"))
        assert itk.GetTransformEnum() == sitk.sitkComposite
        points = grid.index_to_world(np.random.default_rng(5).uniform(1, 3, (30, 3)))
        np.testing.assert_allclose(mapped_by_itk(itk, points), ours.apply(points), atol=1e-6)
        np.testing.assert_allclose(read_transform(tmp_path / "both.h5").apply(points), ours.apply(points), atol=1e-6)

    def test_parts_that_simpleitk_has_no_class_for(self, tmp_path: Path) -> None:
        composite = sitk.CompositeTransform(3)
        composite.AddTransform(
            sitk.ComposeScaleSkewVersor3DTransform((1.2, 1.0, 0.9), (0.1, 0.0, 0.0), (0.0, 0.0, 1.0), 0.3)
        )
        composite.AddTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)))
        sitk.WriteTransform(composite, str(tmp_path / "odd.h5"))
        points = interior_points(oblique_grid())
        np.testing.assert_allclose(
            read_transform(tmp_path / "odd.h5").apply(points), mapped_by_itk(composite, points), atol=1e-6
        )

    def test_single_precision_files(self, tmp_path: Path) -> None:
        sitk.WriteTransform(sitk.TranslationTransform(3, (5.0, -3.0, 2.0)), str(tmp_path / "double.tfm"))
        text = (tmp_path / "double.tfm").read_text().replace("_double_", "_float_")
        (tmp_path / "single.tfm").write_text(text)
        np.testing.assert_allclose(
            read_transform(tmp_path / "single.tfm").apply([[0.0, 0.0, 0.0]]), [[-5.0, 3.0, 2.0]]
        )

    def test_composition_of_one_is_that_one(self, tmp_path: Path) -> None:
        composite = sitk.CompositeTransform(3)
        composite.AddTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)))
        sitk.WriteTransform(composite, str(tmp_path / "one.h5"))
        assert isinstance(read_transform(tmp_path / "one.h5"), AffineTransform)


def read_field(folder: Path, grid: Grid) -> DisplacementField:
    sitk.WriteImage(lps_field_image(grid), str(folder / "part.mha"))
    field = read_transform(folder / "part.mha")
    assert isinstance(field, DisplacementField)
    return field


class TestBSpline:
    @pytest.fixture
    def spline(self) -> sitk.BSplineTransform:
        domain = sitk.Image([30, 30, 30], sitk.sitkUInt8)
        domain.SetOrigin((-20.0, 10.0, 5.0))
        spline = sitk.BSplineTransformInitializer(domain, [3, 3, 3])
        spline.SetParameters(np.random.default_rng(0).normal(0, 2, len(spline.GetParameters())).tolist())
        return spline

    @pytest.mark.parametrize("suffix", [".h5", ".tfm"])
    def test_is_exact_and_round_trips(self, tmp_path: Path, suffix: str, spline: sitk.BSplineTransform) -> None:
        path = tmp_path / f"spline{suffix}"
        sitk.WriteTransform(spline, str(path))
        read = read_transform(path)
        assert isinstance(read, ItkTransform)
        assert isinstance(read, Transform)
        points = np.random.default_rng(1).uniform([-8, -38, 6], [18, -12, 32], (30, 3))
        expected = mapped_by_itk(spline, points)
        assert np.abs(expected - points).max() > 0.5
        np.testing.assert_allclose(read.apply(points), expected, atol=1e-9)
        write_transform(read, tmp_path / "again.h5")
        np.testing.assert_allclose(read_transform(tmp_path / "again.h5").apply(points), expected, atol=1e-9)

    def test_missing_points_stay_missing(self, tmp_path: Path, spline: sitk.BSplineTransform) -> None:
        sitk.WriteTransform(spline, str(tmp_path / "spline.h5"))
        moved = read_transform(tmp_path / "spline.h5").apply([[math.nan] * 3, [0.0, -20.0, 20.0]])
        assert np.isnan(moved[0]).all()
        assert np.isfinite(moved[1]).all()


class TestRefusals:
    def test_learn2reg_layout_is_explained(self, tmp_path: Path) -> None:
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 3), np.float32), np.eye(4)), tmp_path / "disp.nii.gz")
        with pytest.raises(TransformError, match=r"Learn2Reg.*voxels"):
            read_transform(tmp_path / "disp.nii.gz")

    def test_vector_without_intent_is_explained(self, tmp_path: Path) -> None:
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 1, 3), np.float32), np.eye(4)), tmp_path / "disp.nii.gz")
        with pytest.raises(TransformError, match="1007"):
            read_transform(tmp_path / "disp.nii.gz")

    def test_scan_is_no_transform(self, tmp_path: Path) -> None:
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
        with pytest.raises(TransformError, match="not a displacement field"):
            read_transform(tmp_path / "scan.nii.gz")

    def test_colour_image_is_no_transform(self, tmp_path: Path) -> None:
        image = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
        sitk.WriteImage(image, str(tmp_path / "colour.mha"))
        with pytest.raises(TransformError, match="float"):
            read_transform(tmp_path / "colour.mha")

    def test_several_transforms_side_by_side(self, tmp_path: Path) -> None:
        sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), str(tmp_path / "one.tfm"))
        text = (tmp_path / "one.tfm").read_text()
        second = text.split("\n", 1)[1].replace("#Transform 0", "#Transform 1")
        (tmp_path / "two.tfm").write_text(text + second)
        with pytest.raises(TransformError, match="2 transforms side by side"):
            read_transform(tmp_path / "two.tfm")

    def test_two_dimensional(self, tmp_path: Path) -> None:
        sitk.WriteTransform(sitk.Euler2DTransform(), str(tmp_path / "flat.tfm"))
        with pytest.raises(TransformError, match="2D"):
            read_transform(tmp_path / "flat.tfm")

    def test_singular(self, tmp_path: Path) -> None:
        singular = sitk.AffineTransform((1, 0, 0, 0, 1, 0, 0, 0, 0), (0, 0, 0))
        sitk.WriteTransform(singular, str(tmp_path / "flat.tfm"))
        with pytest.raises(TransformError, match=r"flat\.tfm.*invertible"):
            read_transform(tmp_path / "flat.tfm")

    def test_a_transform_without_its_suffix_is_called_what_it_is(self, tmp_path: Path) -> None:
        sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), str(tmp_path / "one.tfm"))
        (tmp_path / "one.tfm").rename(tmp_path / "one")
        with pytest.raises(TransformError, match="but an ITK transform by its content: rename it"):
            read_transform(tmp_path / "one")

    @pytest.mark.parametrize(
        ("space", "frame", "reads"),
        [
            ("left-posterior-superior", "(1,0,0) (0,1,0) (0,0,1)", True),
            ("right-anterior-superior", "(-1,0,0) (0,-1,0) (0,0,1)", True),  # LPS, told in RAS
            ("right-anterior-superior", "(1,0,0) (0,1,0) (0,0,1)", False),
            ("left-posterior-superior", "(0,1,0) (1,0,0) (0,0,1)", False),
        ],
    )
    def test_vectors_in_a_frame_of_their_own(self, tmp_path: Path, space: str, frame: str, reads: bool) -> None:
        """The measurement frame of NRRD, which ITK ignores."""
        values = np.random.default_rng(0).normal(0, 2, (4, 5, 6, 3))
        sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(tmp_path / "field.nrrd"))
        raw = (tmp_path / "field.nrrd").read_bytes().replace(b"left-posterior-superior", space.encode())
        head, _, rest = raw.partition(b"\n\n")
        (tmp_path / "field.nrrd").write_bytes(head + f"\nmeasurement frame: {frame}\n\n".encode() + rest)
        if reads:
            assert isinstance(read_transform(tmp_path / "field.nrrd"), DisplacementField)
        else:
            with pytest.raises(TransformError, match="frame of its own"):
                read_transform(tmp_path / "field.nrrd")

    def test_unknown_class(self, tmp_path: Path) -> None:
        sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), str(tmp_path / "one.tfm"))
        text = (tmp_path / "one.tfm").read_text().replace("TranslationTransform", "ThinPlateSplineKernelTransform")
        (tmp_path / "odd.tfm").write_text(text)
        with pytest.raises(TransformError, match=r"ThinPlateSplineKernelTransform_double_3_3.*not known here"):
            read_transform(tmp_path / "odd.tfm")

    def test_inverse_field_of_slicer(self, tmp_path: Path) -> None:
        sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), str(tmp_path / "one.tfm"))
        text = (tmp_path / "one.tfm").read_text().replace("TranslationTransform", "InverseDisplacementFieldTransform")
        (tmp_path / "inverse.tfm").write_text(text)
        with pytest.raises(TransformError, match="only 3D Slicer writes"):
            read_transform(tmp_path / "inverse.tfm")

    def test_elastix_parameters(self, tmp_path: Path) -> None:
        (tmp_path / "TransformParameters.0.txt").write_text('(Transform "EulerTransform")\n(NumberOfParameters 6)\n')
        with pytest.raises(TransformError, match="transformix -def all"):
            read_transform(tmp_path / "TransformParameters.0.txt")

    @pytest.mark.parametrize("name", ["empty.h5", "empty.tfm", "empty.nii.gz", "empty.nrrd", "empty.mat"])
    @pytest.mark.parametrize("content", [b"", b"no transform\n", bytes(range(256))])
    def test_damaged_files_give_one_readable_error(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, content: bytes
    ) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TransformError, match=name) as caught:
            read_transform(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert capfd.readouterr().err == ""

    def test_not_finite(self, tmp_path: Path) -> None:
        values = np.zeros((4, 5, 6, 3))
        values[1, 1, 1, 1] = np.nan
        sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(tmp_path / "field.mha"))
        with pytest.raises(TransformError, match="1 values"):
            read_transform(tmp_path / "field.mha")
        field = DisplacementField(np.full((3, 2, 2, 2), np.inf), Grid((2, 2, 2), np.eye(4)))
        with pytest.raises(TransformError, match="not finite"):
            write_transform(field, tmp_path / "out.h5")
        assert not (tmp_path / "out.h5").exists()

    def test_missing_and_unknown_names(self, tmp_path: Path) -> None:
        with pytest.raises(MissingFileError):
            read_transform(tmp_path / "nowhere.h5")
        (tmp_path / "transform.x5").write_text("{}")
        with pytest.raises(TransformError, match="not a transform by its name"):
            read_transform(tmp_path / "transform.x5")
        with pytest.raises(OptionsError, match="x5"):
            write_transform(AffineTransform.identity(), tmp_path / "out.x5")
        with pytest.raises(OutputError):
            write_transform(AffineTransform.identity(), tmp_path / "no folder" / "out.h5")

    def test_what_does_not_fit_the_file(self, tmp_path: Path) -> None:
        grid = oblique_grid()
        field = DisplacementField(np.zeros((3, *grid.shape)), grid)
        with pytest.raises(TransformError, match=r"\.h5"):
            write_transform(CompositeTransform((field,)), tmp_path / "field.tfm")
        with pytest.raises(TransformError, match="AffineTransform"):
            write_transform(AffineTransform.identity(), tmp_path / "affine.nii.gz")
        sheared = grid.affine.copy()
        sheared[:3, 1] += 0.1 * sheared[:3, 0]
        with pytest.raises(TransformError, match="right angles"):
            write_transform(DisplacementField(field.displacement, Grid(grid.shape, sheared)), tmp_path / "field.h5")
        assert list(tmp_path.iterdir()) == []


@SLOW_FIXTURES
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-600, 600)] * 3),
    flip=st.booleans(),
    shape=st.tuples(*[st.integers(2, 5)] * 3),
    seed=st.integers(0, 1000),
)
def test_any_lattice_maps_points_as_itk_does(
    tmp_path: Path,
    angles: tuple[float, float, float],
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
    flip: bool,
    shape: tuple[int, int, int],
    seed: int,
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("zyx", angles, degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 0] *= -1.0 if flip else 1.0
    affine[:3, 3] = origin
    grid = Grid(shape, affine)
    field = DisplacementField(np.random.default_rng(seed).normal(0, 3, (3, *shape)), grid)
    write_transform(field, tmp_path / "any.h5")
    itk = sitk.ReadTransform(str(tmp_path / "any.h5"))
    index = np.random.default_rng(seed).uniform(0.001, 0.999, (20, 3)) * (np.asarray(shape) - 1)
    points = grid.index_to_world(index)
    np.testing.assert_allclose(field.apply(points), mapped_by_itk(itk, points), atol=1e-6)
    np.testing.assert_allclose(read_transform(tmp_path / "any.h5").apply(points), field.apply(points), atol=1e-6)


def test_import_is_light() -> None:
    code = "import sys, meddift.io.transforms, meddift.io.points; print([m for m in ('SimpleITK', 'nibabel', 'torch', 'scipy') if m in sys.modules])"  # noqa: E501
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
