"""Scans made on the computer, with every correspondence known: for the demo, tests, evaluation and training."""

from meddift.synthetic.breathing import BreathingDeformation
from meddift.synthetic.deformation import (
    KnownComposite,
    KnownTransform,
    SmallRotation,
    TableShift,
    compose,
)
from meddift.synthetic.degrade import rescan
from meddift.synthetic.interest import body_mask, distinctiveness, lung_mask, pick_points
from meddift.synthetic.local_warps import LocalWarps
from meddift.synthetic.pairs import SyntheticPair, phantom_pair, random_transform, scan_pair
from meddift.synthetic.phantom import Phantom, chest_phantom
from meddift.synthetic.warp import deform_volume

__all__ = [
    "BreathingDeformation",
    "KnownComposite",
    "KnownTransform",
    "LocalWarps",
    "Phantom",
    "SmallRotation",
    "SyntheticPair",
    "TableShift",
    "body_mask",
    "chest_phantom",
    "compose",
    "deform_volume",
    "distinctiveness",
    "lung_mask",
    "phantom_pair",
    "pick_points",
    "random_transform",
    "rescan",
    "scan_pair",
]
