"""Memory that runs out is one clear error with a way out, whichever memory it is; other errors stay what they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from meddift.errors import MemoryLimitError
from meddift.system.memory import memory_for


def test_a_graphics_card_without_room() -> None:
    with (
        pytest.raises(MemoryLimitError, match=r"encoding .* graphics card .*cpu"),
        memory_for("encoding"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def test_a_machine_without_room_as_numpy_and_as_pytorch_say_it() -> None:
    with pytest.raises(MemoryLimitError, match="matching needs more memory than is left"), memory_for("matching"):
        np.empty(2**50, dtype=np.float64)
    with pytest.raises(MemoryLimitError, match="matching needs more memory than is left"), memory_for("matching"):
        torch.empty(2**50, dtype=torch.float64)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="a shape"), memory_for("matching"):
        raise RuntimeError("a shape is wrong")
    with pytest.raises(MemoryLimitError, match="said before"), memory_for("matching"):
        raise MemoryLimitError("said before")
