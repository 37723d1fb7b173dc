"""`Runtime`: where a Matcher computes, in which precision, in how much memory, and what it keeps on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from meddift.errors import OptionsError
from meddift.features import FeatureStore
from meddift.system.device import Precision, before_torch, beside_network, check_device_name, choose_device
from meddift.system.memory import available_memory
from meddift.system.once import once

Result = TypeVar("Result")


class Runtime:
    """Device, precision, memory and store of a Matcher.

    **Concurrency.** Any number of threads may ask one `Matcher`, its encoded scans and its pairs at the same time, and
    each gets the bytes that it would get alone:

    - Networks, encoded scans, pairs and priors never change once they are made. What is computed when it is first
      needed (features, search indexes, the prior of a pair) is computed by one thread while others wait for it.
    - Feature maps are returned, never left in the network. Random draws have generators of their own.
    - How many threads PyTorch takes is never changed in a thread that asks; work in small pieces is done by threads of
      our own that all callers share.
    - Settings of PyTorch that hold for a whole process (TF32 on CUDA) are changed under a lock and put back.
    - Files of the store appear whole or not at all, so several processes may share one.

    Args:
        device: "auto" (CUDA where it works, else CPU), "cpu", "cuda", "cuda:N", or "mps" (a GPU of Apple's, on which
            the network runs; all else, which needs double precision, is computed on the processor).
        precision: Of the network: "float32" gives the same answers everywhere; "bfloat16" is faster on devices that
            compute in it; "auto" takes bfloat16 on such devices, and float32 elsewhere and in the preset "paper".
        store: Whether features are kept on disk and reused; a path or a store says where.
        threads: On how many threads PyTorch computes within our work; None = as many as in the thread that asks.
            What the rest of the program takes is not changed.

    Attributes:
        store: Where features are kept, or None.
        precision: As above.
        threads: As above.

    Raises:
        OptionsError: if the device or the precision has no such name, a device that is named is not there, or threads
            are no number.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        store: bool | Path | str | FeatureStore = True,
        threads: int | None = None,
    ) -> None:
        if precision not in ("auto", "float32", "bfloat16"):
            raise OptionsError(f"precision must be auto, float32 or bfloat16, got {precision!r}")
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise OptionsError(f"threads must be a whole number of at least 1, got {threads!r}")
        self.threads = threads
        self._wanted_device = check_device_name(device)
        self.precision: Precision = precision
        self.store: FeatureStore | None = None
        if isinstance(store, FeatureStore):
            self.store = store
        elif store is not False:
            self.store = FeatureStore(None if store is True else store)
        before_torch()
        if device not in ("auto", "cpu"):  # whoever names a card is told now that it is not there
            _ = self.network_device

    def __repr__(self) -> str:
        """What was asked for."""
        return f"Runtime(device={self._wanted_device!r}, precision={self.precision!r}, store={self.store!r})"

    @once
    def network_device(self) -> str:
        """Where the network computes: "cpu", "cuda:N" or "mps"; to find out loads PyTorch."""
        return choose_device(self._wanted_device)

    @property
    def device(self) -> str:
        """Where all else is computed: "cpu" or "cuda:N"; to find out loads PyTorch."""
        return beside_network(self.network_device)

    def run(self, work: Callable[[], Result]) -> Result:
        """Do some work on as many threads as were asked for; returns what it returns."""
        if self.threads is None:
            return work()
        from meddift.system.threads import on_threads

        return on_threads(self.threads, work)

    def memory_left(self) -> int | None:
        """Bytes of main memory that may still be taken, or None where the system does not say."""
        return available_memory()
