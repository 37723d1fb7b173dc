"""Everything that can go wrong, as one small tree.

MeddiftError
├── GeometryError (ValueError)         a grid, an affine or a frame is impossible or contradicts itself
├── ImageError (ValueError)            an image file cannot be read, or is not a 3D scalar scan
├── PointsError (ValueError)           a points file or array is malformed
│   └── FrameError                     nobody said which frame the coordinates are in
├── TransformError (ValueError)        a transform file or array is malformed
├── MissingFileError (FileNotFoundError)  an input is not there
├── OutputError (OSError)              an output cannot be written; what was there before is untouched
├── OptionsError (ValueError)          an option has a value that makes no sense
├── ModelError (ValueError)            a model specification is unknown or inconsistent
│   ├── WeightsMissingError (FileNotFoundError)  weights are not on this machine
│   ├── WeightsCorruptError            weights are damaged, unsafe, or of another model
│   └── LicenceError                   the licence of the weights has not been accepted
├── MemoryLimitError (MemoryError)     the work does not fit into memory, even in its smallest pieces
└── NoCorrespondenceError (RuntimeError)  two scans have nothing reliable in common

Each class is also a subclass of the builtin that fits, so that callers who know nothing of meddift
can still catch it. A message says what was wrong, in which file, and what to do about it.
"""


class MeddiftError(Exception):
    """Base class of every error that meddift raises on purpose."""


class GeometryError(MeddiftError, ValueError):
    """A grid, an affine or a frame is impossible, or two statements about it contradict each other."""


class ImageError(MeddiftError, ValueError):
    """An image cannot be read, or is not one 3D scalar scan."""


class PointsError(MeddiftError, ValueError):
    """A points file or array is malformed."""


class FrameError(PointsError):
    """The frame of coordinates (RAS, LPS, voxels) is unknown; it is never guessed."""


class TransformError(MeddiftError, ValueError):
    """A transform file or array is malformed."""


class MissingFileError(MeddiftError, FileNotFoundError):
    """An input file or folder does not exist."""


class OutputError(MeddiftError, OSError):
    """An output cannot be written; the previous file, if any, is untouched."""


class OptionsError(MeddiftError, ValueError):
    """An option has a value that makes no sense."""


class ModelError(MeddiftError, ValueError):
    """A model specification is unknown or inconsistent."""


class WeightsMissingError(ModelError, FileNotFoundError):
    """The weights of a model are not on this machine."""


class WeightsCorruptError(ModelError):
    """Weights are damaged, unsafe to load, or belong to another model."""


class LicenceError(ModelError):
    """The licence of the weights has not been accepted yet."""


class MemoryLimitError(MeddiftError, MemoryError):
    """The work does not fit into memory, even in its smallest pieces."""


class NoCorrespondenceError(MeddiftError, RuntimeError):
    """Two scans have nothing reliable in common."""
