"""What several tests of the pipeline share."""

from __future__ import annotations

import pytest

from checkpoints import write_spec, write_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The specification and the weights of a tiny network with group norms, whose draws of noise count."""
    folder = tmp_path_factory.mktemp("model")
    spec = write_spec(folder, "haar")
    return spec, write_weights(folder / "weights", spec)
