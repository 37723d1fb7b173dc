"""Small good transform files of every kind, written by SimpleITK, nibabel and by hand."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813

#: Words that mean something in these formats.
TOKENS = {
    "tfm": (b"Transform: ", b"Parameters: ", b"FixedParameters: ", b"CompositeTransform_double_3_3", b"#Transform 2\n",
            b"Euler3DTransform_double_3_3", b"BSplineTransform_double_3_3", b"DisplacementFieldTransform_double_3_3"),
    "mat": (b"fixed\0", b"AffineTransform_double_3_3\0", b"\0\0\0\x80"),
    "h5": (b"OHDR", b"OCHK", b"TREE", b"SNOD", b"HEAP", b"GCOL", b"FRHP", b"BTHD", b"TransformGroup"),
    "nrrd": (b"sizes: ", b"kinds: ", b"encoding: gzip\n", b"space directions: ", b"none ", b"\n\n"),
    "mha": (b"NDims = ", b"DimSize = ", b"ElementNumberOfChannels = 3\n", b"CompressedData = True\n", b"LOCAL"),
    "nii": (b"n+1\0", b"ni1\0", b"NREG_TRANS"),
}  # fmt: skip


def seeds(folder: Path) -> dict[str, dict[str, bytes]]:
    """Kind -> name -> content."""
    affine = sitk.AffineTransform((1.1, 0.2, 0, -0.1, 0.9, 0.05, 0, 0.1, 1.3), (1, -2, 3), (50, 60, -70))
    euler = sitk.Euler3DTransform((10, -20, 30), 0.3, -0.2, 0.5, (4, 5, -6))
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(0, 4, (3, 4, 5, 3)), isVector=True)
    image.SetOrigin((-10, 5, 30))
    composite = sitk.CompositeTransform([affine, euler])
    spline = sitk.BSplineTransformInitializer(sitk.Image([8, 8, 8], sitk.sitkUInt8), [1, 1, 1])
    field = sitk.DisplacementFieldTransform(sitk.Image(image))
    deformable = sitk.CompositeTransform([affine, field])
    long = sitk.CompositeTransform([sitk.TranslationTransform(3, (number, 2, 3)) for number in range(11)])
    found: dict[str, dict[str, bytes]] = {kind: {} for kind in TOKENS}
    for suffix in ("tfm", "h5", "mat"):
        held = {"affine": affine, "euler": euler}
        if suffix != "mat":
            held.update(composite=composite, spline=spline)
        if suffix == "h5":
            held.update(deformable=deformable, long=long)
        for name, transform in held.items():
            path = folder / f"{name}.{suffix}"
            sitk.WriteTransform(transform, str(path))
            found[suffix][path.name] = path.read_bytes()
    for name, compressed in (("field.nrrd", False), ("packed.nrrd", True), ("field.mha", False), ("packed.mha", True)):
        sitk.WriteImage(image, str(folder / name), compressed)
        found[name[-4:].lstrip(".")][name] = (folder / name).read_bytes()
    values = sitk.GetArrayFromImage(image).transpose(2, 1, 0, 3)[:, :, :, None].astype(np.float32)
    for name in ("field.nii", "packed.nii.gz"):
        stored = nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 2.5, 1.0]))
        stored.header.set_intent(1007)
        nibabel.save(stored, folder / name)
        found["nii"][name] = (folder / name).read_bytes()
    return found
