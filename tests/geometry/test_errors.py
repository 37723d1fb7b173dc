"""The tree of errors: each is one of meddift's and one of Python's."""

from __future__ import annotations

import builtins
import inspect

import pytest

from meddift import errors

ALL = [value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__]


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_error_can_be_caught_as_ours_and_as_pythons(error):
    assert issubclass(error, errors.MeddiftError)
    assert error.__doc__
    if error is not errors.MeddiftError:
        fitting = [base for base in error.__mro__ if base.__module__ == builtins.__name__]
        assert len(set(fitting) - {Exception, BaseException, object}) >= 1


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_the_message_is_what_is_shown(error):
    with pytest.raises(errors.MeddiftError) as caught:
        raise error("baseline.nii.gz is cut off after 12 of 80 MB; copy it again")
    assert str(caught.value) == "baseline.nii.gz is cut off after 12 of 80 MB; copy it again"


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.GeometryError, ValueError),
        (errors.ImageError, ValueError),
        (errors.PointsError, ValueError),
        (errors.FrameError, errors.PointsError),
        (errors.TransformError, ValueError),
        (errors.MissingFileError, FileNotFoundError),
        (errors.OutputError, OSError),
        (errors.OptionsError, ValueError),
        (errors.ModelError, ValueError),
        (errors.WeightsMissingError, FileNotFoundError),
        (errors.WeightsMissingError, errors.ModelError),
        (errors.WeightsCorruptError, errors.ModelError),
        (errors.LicenceError, errors.ModelError),
        (errors.MemoryLimitError, MemoryError),
        (errors.NoCorrespondenceError, RuntimeError),
    ],
)
def test_the_builtin_is_the_one_that_fits(error, builtin):
    assert issubclass(error, builtin)
