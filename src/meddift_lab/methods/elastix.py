"""elastix (itk-elastix): its default parameter maps, and the ones its authors published for lung CT.

Par0011 of the elastix Model Zoo (https://github.com/SuperElastix/ElastixModelZoo, models/Par0011): Staring, Klein,
Reiber, Niessen, Stoel, Pulmonary image registration with elastix using a standard intensity-based algorithm, EMPIRE10
2010. Its pre-processing of the scans is not published and left out; its lung mask is used in the last stage, as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meddift.body import lung_mask
from meddift.errors import TransformError
from meddift.geometry import DisplacementField, Grid, sample
from meddift.io import read_points, write_points, write_volume
from meddift.points import Points
from meddift.volume import Volume
from meddift_lab.methods.answer import Answer, Floats

#: Parameters that all stages of Par0011 share.
_PAR0011: Mapping[str, Any] = {
    "FixedInternalImagePixelType": "float",
    "MovingInternalImagePixelType": "float",
    "FixedImagePyramid": "FixedRecursiveImagePyramid",
    "MovingImagePyramid": "MovingRecursiveImagePyramid",
    "Interpolator": "BSplineInterpolator",
    "BSplineInterpolationOrder": 1,
    "ResampleInterpolator": "FinalBSplineInterpolator",
    "FinalBSplineInterpolationOrder": 3,
    "Resampler": "DefaultResampler",
    "Optimizer": "AdaptiveStochasticGradientDescent",
    "AutomaticParameterEstimation": "true",
    "UseAdaptiveStepSizes": "true",
    "HowToCombineTransforms": "Compose",
    "ImageSampler": "RandomCoordinate",
    "NumberOfSpatialSamples": 2000,
    "NewSamplesEveryIteration": "true",
    "UseDirectionCosines": "true",
    "WriteResultImage": "false",
    "DefaultPixelValue": 0,
}
_PAR0011_BSPLINE: Mapping[str, Any] = {
    **_PAR0011,
    "Registration": "MultiMetricMultiResolutionRegistration",
    "Metric": ["AdvancedNormalizedCorrelation", "TransformBendingEnergyPenalty"],
    "UseRelativeWeights": "true",
    "Metric0RelativeWeight": 1.0,
    "Metric1RelativeWeight": 0.05,
    "Transform": "BSplineTransform",
    "NumberOfResolutions": 5,
    "MaximumNumberOfSamplingAttempts": 50,
}
PAR0011_AFFINE: Mapping[str, Any] = {
    **_PAR0011,
    "Registration": "MultiResolutionRegistration",
    "Metric": "AdvancedNormalizedCorrelation",
    "Transform": "AffineTransform",
    "NumberOfResolutions": 5,
    "ImagePyramidSchedule": [16, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1],
    "AutomaticScalesEstimation": "true",
    "AutomaticTransformInitialization": "true",
    "MaximumNumberOfIterations": 1000,
    "MaximumNumberOfSamplingAttempts": 5,
}
PAR0011_COARSE: Mapping[str, Any] = {
    **_PAR0011_BSPLINE,
    "ImagePyramidSchedule": [16, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1],
    "FinalGridSpacingInPhysicalUnits": [10.0, 10.0, 10.0],
    "GridSpacingSchedule": [8.0, 8.0, 4.0, 2.0, 1.0],
    "MaximumNumberOfIterations": 1000,
}
PAR0011_FINE: Mapping[str, Any] = {
    **_PAR0011_BSPLINE,
    "ImagePyramidSchedule": [4, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 1, 1, 1, 1],
    "FinalGridSpacingInPhysicalUnits": [5.0, 5.0, 5.0],
    "GridSpacingSchedule": [16.0, 8.0, 4.0, 2.0, 1.0],
    "MaximumNumberOfIterations": 2000,
    "ErodeMask": ["false", "false", "true", "true", "true"],
}


def elastix(fixed: Volume, moving: Volume, points: Floats, *, settings: Mapping[str, Any], work: Path) -> Answer:
    """Run registration stages one after another, each starting from the result of the previous one.

    `settings["stages"]` lists the stages, each a parameter map or the name of a default parameter map of elastix;
    `settings["lung_mask"]` lists the numbers of stages, counted from 0, that sample the lungs of the fixed scan only.
    If no lungs are found, no stage uses a mask.
    """
    import itk

    images = []
    for volume, name in ((fixed, "fixed"), (moving, "moving")):
        write_volume(Volume(volume.data.astype(np.float32), volume.grid), work / f"{name}.nrrd")
        images.append(itk.imread(str(work / f"{name}.nrrd"), itk.F))
    masked = set(settings.get("lung_mask", ()))
    lungs = lung_mask(fixed) if masked else None
    mask = None
    if lungs is not None and lungs.data.any():
        write_volume(lungs, work / "mask.nrrd")
        mask = itk.imread(str(work / "mask.nrrd"), itk.UC)
    found: Any = None
    for number, stage in enumerate(settings["stages"]):
        found = _run_stage(images, stage, found, mask if number in masked else None, work / f"stage-{number}")
    moved = _move_points(images[1], found, points, work)

    def field(grid: Grid) -> DisplacementField:
        """Elastix writes the field on the grid of the fixed scan; it is resampled if another grid is requested."""
        image = itk.transformix_deformation_field(images[1], found, output_directory=str(work))
        values = np.asarray(itk.array_view_from_image(image)).transpose(3, 2, 1, 0).astype(np.float32)
        values[:2] *= -1.0  # LPS to RAS
        made = DisplacementField(np.ascontiguousarray(values), fixed.grid)
        if grid.same_as(fixed.grid):
            return made
        centers = grid.voxel_centers().reshape(-1, 3)
        read = sample(made.displacement, fixed.grid.world_to_index(centers))
        return DisplacementField(read.reshape(3, *grid.shape), grid)

    return Answer(moved, field, {"lung_mask": mask is not None})


def _run_stage(images: Sequence[Any], stage: Any, before: Any, mask: Any, folder: Path) -> Any:
    """Run one stage; returns the parameter object of all stages up to and including it."""
    import itk

    folder.mkdir()
    parameters = itk.ParameterObject.New()
    if isinstance(stage, str):
        parameters.AddParameterMap(parameters.GetDefaultParameterMap(stage))
    else:
        parameters.AddParameterMap({name: _texts(value) for name, value in stage.items()})
    parameters.SetParameter("WriteResultImage", "false")
    method = itk.ElastixRegistrationMethod.New(*images)
    method.SetParameterObject(parameters)
    method.SetLogToConsole(False)
    method.SetOutputDirectory(str(folder))
    if mask is not None:
        method.SetFixedMask(mask)
    if before is not None:
        method.SetInitialTransformParameterObject(before)
    method.UpdateLargestPossibleRegion()
    result = method.GetTransformParameterObject()
    if before is None:
        return result
    # The result contains its own stage only: prepend the previous stages, so that transformix composes all of them.
    whole = itk.ParameterObject.New()
    for number in range(before.GetNumberOfParameterMaps()):
        whole.AddParameterMap(before.GetParameterMap(number))
    whole.AddParameterMap(result.GetParameterMap(result.GetNumberOfParameterMaps() - 1))
    return whole


def _move_points(moving: Any, parameters: Any, points: Floats, work: Path) -> Floats:
    """Transform points by transformix, which reads and writes files only."""
    import itk

    folder = work / "points"
    folder.mkdir()
    write_points(Points(points), work / "points.txt")
    transformix = itk.TransformixFilter.New(moving)
    transformix.SetTransformParameterObject(parameters)
    transformix.SetFixedPointSetFileName(str(work / "points.txt"))
    transformix.SetOutputDirectory(str(folder))
    transformix.SetLogToConsole(False)
    transformix.UpdateLargestPossibleRegion()
    found = read_points(folder / "outputpoints.txt")
    if len(found) != len(points):
        raise TransformError(f"transformix returned {len(found)} of {len(points)} points")
    return found.positions


def _texts(value: Any) -> list[str]:
    """A parameter in the form that elastix uses: a list of strings."""
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
