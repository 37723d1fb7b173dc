"""`Executor`: the interface through which the loop runs tasks, in spawned processes or in actors of Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from meddift.errors import MeddiftError


class ExecutorError(MeddiftError, RuntimeError):
    """Workers cannot be started, or run another version of meddift or of its weights than this program."""


@dataclass(frozen=True)
class Setup:
    """How workers are created; the same for all workers of a run.

    Attributes:
        factory: `module:function` that creates the engine.
        settings: Argument of that function, ready for JSON.
        threads: Number of threads of each worker.
        devices: Indices of CUDA devices, one for each worker; empty on the CPU.
        versions: Version of the package and digests of code and weights, which must be equal in all workers.
    """

    factory: str
    settings: Mapping[str, Any]
    threads: int
    devices: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A task that has ended: with an answer, or because its worker died.

    Attributes:
        task: Number of the task.
        answer: Answer of the worker; None if it died.
        death: How the worker died, in words; "" if it did not.
    """

    task: int
    answer: Mapping[str, Any] | None = None
    death: str = ""


class Executor(Protocol):
    """Runs tasks, each in one of several workers that live as long as it does.

    A worker that dies is replaced, and its task is returned as `Done` without an answer. All methods must be called
    from one thread.
    """

    def free(self) -> int:
        """Number of tasks that can be submitted now."""

    def submit(self, task: int, content: Mapping[str, Any]) -> None:
        """Start a task.

        Args:
            task: Number of the task, unique in this run.
            content: Description of the task, small and ready for JSON; see `worker.Worker.do`.
        """

    def next_done(self, timeout_s: float) -> Done | None:
        """Wait for the next task that ends.

        Args:
            timeout_s: Longest time to wait, s.

        Returns:
            The task; None if none has ended within the time, or if a worker became free meanwhile.

        Raises:
            ExecutorError: if workers cannot be started, or have other code or weights than this program.
        """

    def close(self, *, at_once: bool) -> None:
        """End all workers; with `at_once`, also those that are running a task."""


def check_versions(wanted: Mapping[str, str], found: Mapping[str, str], where: str) -> None:
    """Check that a worker has the same code and weights as this program.

    Args:
        wanted: Name -> version in this program.
        found: Name -> version in the worker.
        where: Machine of the worker, for the message.

    Raises:
        ExecutorError: if a version differs.
    """
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ExecutorError(
                f"the worker on {where} has another {name} than this program ({found.get(name)!r}, not {value!r}): "
                f"results would be mixed. Install the same meddift and the same weights everywhere"
            )
