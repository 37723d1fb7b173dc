"""meddift finds the same anatomical point in two 3D medical scans and answers in millimetres.

    import meddift

    matcher = meddift.Matcher(model="builtin", preset="default")
    pair = matcher.pair("baseline.nii.gz", "followup.nii.gz")
    matches = pair.match(meddift.read_points("lesions.mrk.json"))

Every position in memory is world RAS mm. Nothing heavy is loaded until it is used: `import meddift`
takes neither torch nor MONAI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift.errors import MeddiftError
    from meddift.geometry import Grid, Transform
    from meddift.io import read_points, read_transform, read_volume, write_points, write_volume
    from meddift.matching import Matches
    from meddift.pipeline import Matcher, Options, Pair, match
    from meddift.points import Points
    from meddift.registration import Registration, warp
    from meddift.tracking import FollowUp, TimePoint, track
    from meddift.volume import Volume

__version__ = "0.1.0"

#: Public name -> module that defines it. Loaded on first use (PEP 562).
_HOME = {
    "FollowUp": "meddift.tracking",
    "Grid": "meddift.geometry",
    "Matcher": "meddift.pipeline",
    "Matches": "meddift.matching",
    "MeddiftError": "meddift.errors",
    "Options": "meddift.pipeline",
    "Pair": "meddift.pipeline",
    "Points": "meddift.points",
    "Registration": "meddift.registration",
    "TimePoint": "meddift.tracking",
    "Transform": "meddift.geometry",
    "Volume": "meddift.volume",
    "match": "meddift.pipeline",
    "read_points": "meddift.io",
    "read_transform": "meddift.io",
    "read_volume": "meddift.io",
    "track": "meddift.tracking",
    "warp": "meddift.registration",
    "write_points": "meddift.io",
    "write_volume": "meddift.io",
}

__all__ = [
    "FollowUp",
    "Grid",
    "Matcher",
    "Matches",
    "MeddiftError",
    "Options",
    "Pair",
    "Points",
    "Registration",
    "TimePoint",
    "Transform",
    "Volume",
    "__version__",
    "match",
    "read_points",
    "read_transform",
    "read_volume",
    "track",
    "warp",
    "write_points",
    "write_volume",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
