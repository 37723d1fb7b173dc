"""Scans made on the computer, with every correspondence known: for the demo, tests, evaluation and training."""

from meddift_lab.synthetic.breathing import BreathingDeformation
from meddift_lab.synthetic.deformation import (
    KnownComposite,
    KnownTransform,
    SmallRotation,
    TableShift,
    compose,
)
from meddift_lab.synthetic.degrade import rescan
from meddift_lab.synthetic.interest import distinctiveness, pick_points
from meddift_lab.synthetic.local_warps import LocalWarps
from meddift_lab.synthetic.pairs import SyntheticPair, phantom_pair, random_transform, scan_pair
from meddift_lab.synthetic.phantom import Phantom, chest_phantom
from meddift_lab.synthetic.warp import deform_volume

__all__ = [
    "BreathingDeformation",
    "KnownComposite",
    "KnownTransform",
    "LocalWarps",
    "Phantom",
    "SmallRotation",
    "SyntheticPair",
    "TableShift",
    "chest_phantom",
    "compose",
    "deform_volume",
    "distinctiveness",
    "phantom_pair",
    "pick_points",
    "random_transform",
    "rescan",
    "scan_pair",
]
