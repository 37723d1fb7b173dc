"""SimpleITK's registration framework, with the settings of its own notebooks on the lung CTs of POPI.

https://github.com/InsightSoftwareConsortium/SimpleITK-Notebooks: 60 (affine start), 65 (free-form deformation),
66 (demons). POPI's scans lie in one frame; others do not, so an affine stage comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meddift.geometry import DisplacementField, Grid, Transform
from meddift.io.itk import affine_of
from meddift.io.itk_transforms import ItkTransform, field_of, from_records, to_records
from meddift.registration import sampled
from meddift.volume import Volume
from meddift_lab.methods.answer import Answer, Floats

_NAME = Path("the transform of SimpleITK")  # shown in error messages

#: 60_Registration_Introduction, with an affine instead of a rigid transform.
AFFINE: Mapping[str, Any] = {
    "start": "centres of the fields of view",
    "metric": "Mattes mutual information, 50 bins",
    "sampling": 0.01,
    "learning_rate": 1.0,
    "iterations": 100,
    "shrink": [4, 2, 1],
    "sigmas_mm": [2, 1, 0],
    "seed": 1,
}
#: 65_Registration_FFD, intra-modal.
BSPLINE: Mapping[str, Any] = {
    "affine": AFFINE,
    "metric": "mean squares",
    "sampling": 0.01,
    "control_points_mm": 50.0,
    "order": 3,
    "optimiser": "LBFGSB, gradient tolerance 1e-5",
    "iterations": 100,
    "shrink": [4, 2, 1],
    "sigmas_mm": [2, 1, 0],
    "seed": 1,
}
#: 66_Registration_Demons, the registration framework with the demons metric.
DEMONS: Mapping[str, Any] = {
    "affine": AFFINE,
    "metric": "demons, intensity difference threshold 10",
    "field_variance": 1.5,
    "update_variance": 0.0,
    "learning_rate": 1.0,
    "iterations": 20,
    "shrink": [4, 2, 1],
    "sigmas_mm": [8, 4, 0],
}


def affine(fixed: Volume, moving: Volume, points: Floats, *, settings: Mapping[str, Any], work: Path) -> Answer:
    """Affine registration by Mattes mutual information."""
    return _answer(fit_affine(*as_images(fixed, moving), settings), points)


def bspline(fixed: Volume, moving: Volume, points: Floats, *, settings: Mapping[str, Any], work: Path) -> Answer:
    """Affine registration followed by a free-form deformation with cubic B-splines on a coarse control grid."""
    import SimpleITK as sitk  # noqa: N813

    images = as_images(fixed, moving)
    start = fit_affine(*images, settings["affine"])
    mesh = [max(round(extent / settings["control_points_mm"]), 1) for extent in fixed.grid.extent]
    first = sitk.BSplineTransformInitializer(image1=images[0], transformDomainMeshSize=mesh, order=settings["order"])
    method = _framework(settings)
    method.SetMetricAsMeanSquares()
    _sample(method, settings)
    method.SetMovingInitialTransform(start)
    method.SetInitialTransform(first)
    method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-5, numberOfIterations=settings["iterations"])
    found = method.Execute(*images)
    return _answer(sitk.CompositeTransform([start, found]), points)


def demons(fixed: Volume, moving: Volume, points: Floats, *, settings: Mapping[str, Any], work: Path) -> Answer:
    """Affine registration followed by multi-resolution demons with a dense displacement field."""
    import SimpleITK as sitk  # noqa: N813

    images = as_images(fixed, moving)
    start = fit_affine(*images, settings["affine"])
    first = sitk.DisplacementFieldTransform(_itk_field(sitk.Transform(3, sitk.sitkIdentity), fixed.grid, double=True))
    first.SetSmoothingGaussianOnUpdate(
        varianceForUpdateField=settings["update_variance"], varianceForTotalField=settings["field_variance"]
    )
    method = _framework(settings)
    method.SetMetricAsDemons(10)
    method.SetMovingInitialTransform(start)
    method.SetInitialTransform(first)
    _descend(method, settings)
    found = method.Execute(*images)
    return _answer(sitk.CompositeTransform([start, found]), points)


def fit_affine(fixed: Any, moving: Any, settings: Mapping[str, Any]) -> Any:
    """Fit a SimpleITK affine from fixed to moving points, LPS mm, to two float images."""
    import SimpleITK as sitk  # noqa: N813

    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    method = _framework(settings)
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=50)
    _sample(method, settings)
    method.SetInitialTransform(start)
    _descend(method, settings)
    method.SetOptimizerScalesFromPhysicalShift()
    return method.Execute(fixed, moving)


def as_images(fixed: Volume, moving: Volume) -> tuple[Any, Any]:
    """Both scans as SimpleITK images of float32."""
    import SimpleITK as sitk  # noqa: N813

    return sitk.Cast(fixed.to_sitk(), sitk.sitkFloat32), sitk.Cast(moving.to_sitk(), sitk.sitkFloat32)


def as_transform(transform: Any) -> Transform:
    """Convert a SimpleITK transform, LPS, to a meddift transform, RAS."""
    return from_records(to_records(ItkTransform(transform), _NAME), _NAME)


def _framework(settings: Mapping[str, Any]) -> Any:
    """A registration method with the settings that all stages share."""
    import SimpleITK as sitk  # noqa: N813

    method = sitk.ImageRegistrationMethod()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel(settings["shrink"])
    method.SetSmoothingSigmasPerLevel(settings["sigmas_mm"])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    return method


def _sample(method: Any, settings: Mapping[str, Any]) -> None:
    """Sample random voxels, with a fixed seed for reproducibility; the notebooks seed with the clock."""
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(settings["sampling"], settings["seed"])


def _descend(method: Any, settings: Mapping[str, Any]) -> None:
    method.SetOptimizerAsGradientDescent(
        learningRate=settings["learning_rate"],
        numberOfIterations=settings["iterations"],
        convergenceMinimumValue=1e-6,
        convergenceWindowSize=10,
    )


def _answer(transform: Any, points: Floats) -> Answer:
    """Transform points with ITK's point transform, and provide the field on request."""
    mapped = as_transform(transform)

    def field(grid: Grid) -> DisplacementField:
        if transform.IsLinear():
            return sampled(mapped, grid)
        import SimpleITK as sitk  # noqa: N813

        image = _itk_field(transform, grid)
        vectors = np.ascontiguousarray(sitk.GetArrayFromImage(image).transpose(3, 2, 1, 0))
        width, height, depth = image.GetSize()
        return field_of(vectors, Grid((width, height, depth), affine_of(image)), _NAME)

    return Answer(mapped.apply(points), field)


def _itk_field(transform: Any, grid: Grid, *, double: bool = False) -> Any:
    """The displacement field of a SimpleITK transform, sampled by ITK at the voxel centres of a grid."""
    import SimpleITK as sitk  # noqa: N813

    like = Volume(np.zeros(grid.shape, dtype=np.uint8), grid).to_sitk()
    kind = sitk.sitkVectorFloat64 if double else sitk.sitkVectorFloat32
    return sitk.TransformToDisplacementField(
        transform, kind, like.GetSize(), like.GetOrigin(), like.GetSpacing(), like.GetDirection()
    )
