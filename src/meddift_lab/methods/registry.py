"""The registry of all methods, in the order of the tables."""

from __future__ import annotations

from collections.abc import Sequence

from meddift.errors import OptionsError
from meddift_lab.methods import convexadam, elastix, simpleitk
from meddift_lab.methods.answer import Method

_HERE = "meddift_lab.methods"
_NOTEBOOKS = "SimpleITK notebooks"
_ZOO = "elastix Model Zoo, Par0011 (EMPIRE10, lung CT)"

METHODS: tuple[Method, ...] = (
    Method("identity", "not moving", f"{_HERE}.simple:identity"),
    Method(
        "translation",
        "translation, centres of the scans",
        f"{_HERE}.simple:translation",
        {"middle": "field of view"},
    ),
    Method(
        "translation-mass",
        "translation, centres of mass",
        f"{_HERE}.simple:translation",
        {"middle": "mass"},
    ),
    Method(
        "simpleitk-affine",
        "SimpleITK affine",
        f"{_HERE}.simpleitk:affine",
        simpleitk.AFFINE,
        ("SimpleITK",),
        ("SimpleITK",),
        f"{_NOTEBOOKS} 60",
    ),
    Method(
        "elastix-affine",
        "elastix affine",
        f"{_HERE}.elastix:elastix",
        {"stages": [elastix.PAR0011_AFFINE]},
        ("itk-elastix",),
        ("itk",),
        _ZOO,
    ),
    Method(
        "elastix-bspline",
        "elastix B-spline, defaults",
        f"{_HERE}.elastix:elastix",
        {"stages": ["translation", "affine", "bspline"]},
        ("itk-elastix",),
        ("itk",),
        "elastix's default parameter maps",
    ),
    Method(
        "elastix-lung",
        "elastix B-spline, lung preset",
        f"{_HERE}.elastix:elastix",
        {"stages": [elastix.PAR0011_AFFINE, elastix.PAR0011_COARSE, elastix.PAR0011_FINE], "lung_mask": [2]},
        ("itk-elastix",),
        ("itk",),
        _ZOO,
    ),
    Method(
        "simpleitk-bspline",
        "SimpleITK B-spline",
        f"{_HERE}.simpleitk:bspline",
        simpleitk.BSPLINE,
        ("SimpleITK",),
        ("SimpleITK",),
        f"{_NOTEBOOKS} 65 (POPI lung CT)",
    ),
    Method(
        "simpleitk-demons",
        "SimpleITK demons",
        f"{_HERE}.simpleitk:demons",
        simpleitk.DEMONS,
        ("SimpleITK",),
        ("SimpleITK",),
        f"{_NOTEBOOKS} 66 (POPI lung CT)",
    ),
    Method(
        "ants-syn",
        "ANTs SyN, defaults",
        f"{_HERE}.ants:syn",
        {"type_of_transform": "SyN", "seed": 1},
        ("antspyx",),
        ("ants", "pandas"),
        "ants.registration (mutual information)",
    ),
    Method(
        "ants-syn-cc",
        "ANTs SyN, cross-correlation",
        f"{_HERE}.ants:syn",
        {"type_of_transform": "antsRegistrationSyN[s]", "seed": 1},
        ("antspyx",),
        ("ants", "pandas"),
        "antsRegistrationSyN.sh",
    ),
    Method(
        "convexadam",
        "ConvexAdam, MIND",
        f"{_HERE}.convexadam:convexadam",
        convexadam.SETTINGS,
        ("convexAdam", "torch", "SimpleITK"),
        ("torch", "SimpleITK", "convexAdam.convex_adam_MIND"),
        "defaults of the package",
    ),
    Method(
        "unigradicon",
        "uniGradICON",
        f"{_HERE}.unigradicon:unigradicon",
        {"finetune_steps": None},
        ("unigradicon", "itk"),
        ("unigradicon", "itk"),
        "the published network",
        requirement=f"{_HERE}.unigradicon:lacking_weights",
    ),
    Method(
        "mind",
        "MIND-SSC in meddift's search",
        f"{_HERE}.own:match",
        {"model": "builtin", "preset": "default", "levels": ["mind"]},
        ("torch",),
        ("torch", "meddift.pipeline.pair"),
        "the hand-made level alone",
        own=True,
    ),
    Method(
        "meddift-paper",
        "meddift match, preset paper",
        f"{_HERE}.own:match",
        {"model": "builtin", "preset": "paper"},
        ("torch", "monai"),
        ("torch", "monai.networks.nets", "meddift.pipeline.pair"),
        "the paper's method with the built-in model",
        own=True,
    ),
    Method(
        "meddift",
        "meddift match",
        f"{_HERE}.own:match",
        {"model": "builtin", "preset": "default"},
        ("torch", "monai"),
        ("torch", "monai.networks.nets", "meddift.pipeline.pair"),
        "defaults",
        own=True,
    ),
    Method(
        "meddift-register",
        "meddift register",
        f"{_HERE}.own:register",
        {"model": "builtin", "preset": "default"},
        ("torch", "monai"),
        ("torch", "monai.networks.nets", "meddift.pipeline.pair"),
        "defaults",
        own=True,
    ),
)


def find_methods(names: Sequence[str] | None) -> tuple[Method, ...]:
    """Find methods by name.

    Args:
        names: Names of methods; None = all.

    Returns:
        The methods in the order of the tables.

    Raises:
        OptionsError: if a name is unknown.
    """
    if names is None:
        return METHODS
    known = {method.name for method in METHODS}
    strange = [name for name in names if name not in known]
    if strange:
        raise OptionsError(f"there is no method {', '.join(strange)}; there are {', '.join(m.name for m in METHODS)}")
    return tuple(method for method in METHODS if method.name in set(names))
