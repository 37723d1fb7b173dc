"""`Runtime`: device, precision, threads and store of a Matcher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from meddift.errors import OptionsError
from meddift.features import FeatureStore
from meddift.system.device import Precision, before_torch, beside_network, check_device_name, choose_device
from meddift.system.memory import available_memory, card_memory
from meddift.system.once import known, once

Result = TypeVar("Result")


class Runtime:
    """Device, precision, threads and store of a Matcher.

    **Concurrency.** Any number of threads may use one `Matcher`, its encoded scans and its pairs at the same time, and
    each obtains exactly the results that it would obtain alone (on a graphics card up to rounding, see below):

    - Networks, encoded scans, pairs and priors are immutable. Values that are computed on first use (features, search
      indexes, the prior of a pair) are computed by one thread while others wait.
    - Feature maps are returned, never stored in the network. Random numbers come from separate generators.
    - The number of PyTorch threads is never changed in the calling thread; small pieces of work run on a pool of
      threads that all callers share.
    - Process-wide settings of PyTorch (TF32 on CUDA) are changed under a lock and restored.
    - On CUDA both scans of a pair may go through the network in one batch (`encode_together`), and convolutions of
      a batch may round otherwise than those of one scan, in the precision of the network.
    - Files of the store are written atomically, so several processes may share one store.

    Args:
        device: "auto" (CUDA where it works, else CPU), "cpu", "cuda", "cuda:N", or "mps" (Apple GPU: the network runs
            on it, everything else, which needs double precision, on the CPU).
        precision: Precision of the network: "float32" gives the same results on all devices; "bfloat16" is faster on
            devices that support it; "auto" selects bfloat16 on such devices, and float32 elsewhere and in the preset
            "paper".
        store: True keeps features in the default store on disk, False keeps none; a path or a store says where.
        threads: Number of PyTorch threads for the work of this Matcher; None = as in the calling thread. The rest of
            the program is not affected.

    Attributes:
        store: The feature store; None = features are not stored.
        precision: As above.
        threads: As above.

    Raises:
        OptionsError: if the device or precision is unknown, a named device is not available, or `threads` is not a
            positive whole number.
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
        if device not in ("auto", "cpu"):  # a named device that is missing is an error now, not at first use
            _ = self.network_device

    def __repr__(self) -> str:
        """The arguments."""
        return f"Runtime(device={self._wanted_device!r}, precision={self.precision!r}, store={self.store!r})"

    @once
    def network_device(self) -> str:
        """Device of the network: "cpu", "cuda:N" or "mps". Loads PyTorch."""
        return choose_device(self._wanted_device)

    @property
    def device(self) -> str:
        """Device of everything outside the network: "cpu" or "cuda:N". Loads PyTorch."""
        return beside_network(self.network_device)

    @property
    def on_card(self) -> bool:
        """Whether the network runs on a CUDA device. Loads PyTorch."""
        return self.network_device.startswith("cuda")

    @property
    def on_card_as_known(self) -> bool:
        """As `on_card` without loading PyTorch: with the device "auto" False until the device has been determined."""
        return known(self, "network_device") and self.on_card

    def run(self, work: Callable[[], Result]) -> Result:
        """Call `work` with the configured number of threads, and return its result."""
        if self.threads is None:
            return work()
        from meddift.system.threads import on_threads

        return on_threads(self.threads, work)

    def memory_left(self) -> int | None:
        """Free main memory, bytes; None where the system does not report it."""
        return available_memory()

    def card_memory_left(self) -> int:
        """Free memory of the CUDA device of the network, bytes."""
        return card_memory(self.network_device)
