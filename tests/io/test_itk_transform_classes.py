"""Every linear class of ITK, as c3d, ITK-SNAP, ANTs, uniGradICON and 3D Slicer write them: truth is TransformPoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from meddift.errors import TransformError
from meddift.geometry import AffineTransform, CompositeTransform
from meddift.io import read_transform, write_transform

CASES = Path(__file__).parent / "cases"
LPS = np.array([-1.0, -1.0, 1.0])

#: Class -> number of parameters and of fixed parameters (Modules/Core/Transform/include of ITK 5.4).
LINEAR = {
    "AffineTransform": (12, 3),
    "MatrixOffsetTransformBase": (12, 3),
    "ScalableAffineTransform": (12, 3),
    "FixedCenterOfRotationAffineTransform": (12, 3),
    "CenteredAffineTransform": (15, 3),
    "Euler3DTransform": (6, 3),
    "CenteredEuler3DTransform": (9, 3),
    "VersorTransform": (3, 3),
    "VersorRigid3DTransform": (6, 3),
    "QuaternionRigidTransform": (7, 3),
    "Similarity3DTransform": (7, 3),
    "ScaleVersor3DTransform": (9, 3),
    "ScaleSkewVersor3DTransform": (15, 3),
    "ComposeScaleSkewVersor3DTransform": (12, 3),
    "ScaleTransform": (3, 3),
    "ScaleLogarithmicTransform": (3, 3),
    "TranslationTransform": (3, 0),
    "IdentityTransform": (0, 0),
}


def text(*transforms: tuple[str, list[float], list[float]]) -> str:
    """A text file of ITK, its members as they stand."""
    lines = ["#Insight Transform File V1.0"]
    for number, (name, parameters, fixed) in enumerate(transforms):
        lines += [f"#Transform {number}", f"Transform: {name}_double_3_3"]
        if name != "CompositeTransform":
            lines += [f"{key}: {' '.join(map(repr, values))}" for key, values in (
                ("Parameters", parameters), ("FixedParameters", fixed))]  # fmt: skip
    return "\n".join(lines) + "\n"


def by_simpleitk(path: Path, points: np.ndarray) -> np.ndarray:
    transform = sitk.ReadTransform(str(path))
    return np.array([transform.TransformPoint(point.tolist()) for point in points])


def drawn(name: str, seed: int, fixed: int | None = None) -> tuple[str, list[float], list[float]]:
    rng = np.random.default_rng(seed)
    count, centre = LINEAR[name]
    values, middle = rng.normal(0, 0.3, count), rng.normal(0, 40, centre if fixed is None else fixed)
    if fixed == 4:
        middle[3] = 1.0  # the order of Euler's angles: z, y, x
    return name, values.tolist(), middle.tolist()


POINTS = np.random.default_rng(9).normal(0, 60, (6, 3))  # LPS


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_maps_points_as_simpleitk_does(name: str, tmp_path: Path) -> None:
    # Inside a composition SimpleITK applies also the classes that it has no name for.
    path = tmp_path / "one.tfm"
    path.write_text(text(("CompositeTransform", [], []), drawn(name, 1)))
    found = read_transform(path)
    assert isinstance(found, AffineTransform)
    np.testing.assert_allclose(found.apply(POINTS * LPS) * LPS, by_simpleitk(path, POINTS), atol=1e-8)


@pytest.mark.parametrize("name", ["Euler3DTransform", "CenteredEuler3DTransform"])
def test_euler_angles_in_the_other_order(name: str, tmp_path: Path) -> None:
    path = tmp_path / "zyx.tfm"
    path.write_text(text(("CompositeTransform", [], []), drawn(name, 2, fixed=4)))
    np.testing.assert_allclose(read_transform(path).apply(POINTS * LPS) * LPS, by_simpleitk(path, POINTS), atol=1e-8)


@pytest.mark.parametrize("name", sorted(set(LINEAR) - {"IdentityTransform"}))
def test_too_few_or_too_many_numbers_are_refused(name: str, tmp_path: Path) -> None:
    """ITK takes memory garbage for what is missing."""
    kind, values, fixed = drawn(name, 3)
    for count in (values[:-1], [*values, 0.5]):
        (tmp_path / "cut.tfm").write_text(text((kind, count, fixed)))
        with pytest.raises(TransformError, match=f"a {name} of ITK has {len(values)} parameters"):
            read_transform(tmp_path / "cut.tfm")


@pytest.mark.parametrize(
    ("case", "point", "expected"),
    [
        # c3d_affine_tool -oitk: M (x - c) + c + t by hand, M = [1.05 .02 0; -.03 .97 .01; 0 .04 1.1].
        ("c3d_matrix_offset.txt", (5.0, 10.0, -30.0), (9.55, 3.45, -19.4)),
        # The translation, which was added last, first: (6, 12, -27); then the affine about (10, 20, -30).
        ("centered_affine_in_composite.tfm", (5.0, 10.0, -30.0), (10.64, 5.39, -16.02)),
    ],
)
def test_files_of_c3d_and_itksnap(case: str, point: tuple[float, ...], expected: tuple[float, ...]) -> None:
    moved = read_transform(CASES / case).apply(np.array([point]) * LPS) * LPS
    np.testing.assert_allclose(moved, [expected], atol=1e-9)
    np.testing.assert_allclose(by_simpleitk(CASES / case, np.array([point])), [expected], atol=1e-9)


def test_compositions_inside_compositions_as_ants_and_unigradicon_nest_them(tmp_path: Path) -> None:
    path = tmp_path / "nested.tfm"
    inner = [("CompositeTransform", [], []), drawn("Euler3DTransform", 4), drawn("MatrixOffsetTransformBase", 5)]
    path.write_text(text(("CompositeTransform", [], []), drawn("CenteredAffineTransform", 6), *inner))
    found = read_transform(path)
    assert isinstance(found, CompositeTransform)
    assert len(found.parts) == 3
    np.testing.assert_allclose(found.apply(POINTS * LPS) * LPS, by_simpleitk(path, POINTS), atol=1e-8)


@pytest.mark.parametrize("suffix", [".tfm", ".h5"])
def test_written_back_it_means_the_same_to_simpleitk(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "in.tfm"
    path.write_text(text(("CompositeTransform", [], []), *(drawn(name, 7) for name in sorted(LINEAR)[:4])))
    write_transform(read_transform(path), tmp_path / f"out{suffix}")
    expected = by_simpleitk(path, POINTS)
    np.testing.assert_allclose(by_simpleitk(tmp_path / f"out{suffix}", POINTS), expected, atol=1e-8)
    again = read_transform(tmp_path / f"out{suffix}")
    np.testing.assert_allclose(again.apply(POINTS * LPS) * LPS, expected, atol=1e-8)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_splines_of_every_order(order: int, tmp_path: Path) -> None:
    spline = sitk.BSplineTransformInitializer(sitk.Image([30, 30, 30], sitk.sitkUInt8), [4, 4, 4], order)
    spline.SetParameters(np.random.default_rng(order).normal(0, 2, len(spline.GetParameters())).tolist())
    inner = np.random.default_rng(8).uniform(3, 25, (6, 3))
    for name in ("spline.tfm", "spline.h5"):
        sitk.WriteTransform(spline, str(tmp_path / name))
        for path in (tmp_path / name, tmp_path / f"again-{name}"):
            found = read_transform(path) if path.exists() else None
            if found is None:
                write_transform(read_transform(tmp_path / name), path)
                found = read_transform(path)
            expected = [spline.TransformPoint(point.tolist()) for point in inner]
            np.testing.assert_allclose(found.apply(inner * LPS) * LPS, expected, atol=1e-9)


@pytest.mark.parametrize("case", ["h5py_default_chunked.h5", "h5py_v108_chunked.h5", "itk_compressed.h5"])
def test_hdf5_in_compressed_chunks(case: str) -> None:
    """Written once by h5py 3.16 (gzip, shuffle; old and new headers) and by itk 5.4 with SetUseCompression(True)."""
    found = read_transform(CASES / case)
    np.testing.assert_allclose(found.apply(POINTS * LPS) * LPS, by_simpleitk(CASES / case, POINTS), atol=1e-9)


@pytest.mark.parametrize("smoothing", ["Gaussian", "BSpline"])
@pytest.mark.parametrize("suffix", [".tfm", ".h5"])
def test_fields_that_were_optimised_in_simpleitk(smoothing: str, suffix: str, tmp_path: Path) -> None:
    """Demons and SyN in SimpleITK leave a field of a class of its own behind."""
    values = np.random.default_rng(0).normal(0, 4, (8, 9, 10, 3))
    field = sitk.DisplacementFieldTransform(sitk.GetImageFromArray(values, isVector=True))
    if smoothing == "Gaussian":
        field.SetSmoothingGaussianOnUpdate(1.0, 0.5)
    else:
        field.SetSmoothingBSplineOnUpdate([4, 4, 4])
    sitk.WriteTransform(field, str(tmp_path / f"demons{suffix}"))
    inner = np.random.default_rng(1).uniform(1, 6, (6, 3))
    expected = [field.TransformPoint(point.tolist()) for point in inner]
    found = read_transform(tmp_path / f"demons{suffix}")
    np.testing.assert_allclose(found.apply(inner * LPS) * LPS, expected, atol=1e-9)
