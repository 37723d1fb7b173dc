"""What the loop needs of whoever runs tasks: spawned processes, or actors of Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from meddift.errors import MeddiftError


class ExecutorError(MeddiftError, RuntimeError):
    """Workers cannot be started, or differ from this program."""


@dataclass(frozen=True)
class Setup:
    """How a worker is made; the same for all.

    Attributes:
        factory: `module:function` that makes the engine.
        settings: What the function is given, ready for JSON.
        threads: Threads of each worker.
        devices: Of CUDA, by number; one for each worker, or none.
        versions: What a worker must agree with: of the package and of its code.
    """

    factory: str
    settings: Mapping[str, Any]
    threads: int
    devices: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A task that is finished, one way or the other.

    Attributes:
        task: Its number.
        answer: What the worker answered; None if it died.
        death: How it died.
    """

    task: int
    answer: Mapping[str, Any] | None = None
    death: str = ""


class Executor(Protocol):
    """Runs tasks, each in one of several workers that live as long as it does.

    A worker that dies is replaced; what it was doing is told as `Done` without an answer. All methods are called from
    one thread.
    """

    def free(self) -> int:
        """How many tasks can be submitted now."""

    def submit(self, task: int, content: Mapping[str, Any]) -> None:
        """Begin a task.

        Args:
            task: Its number.
            content: Ready for JSON, small.
        """

    def next_done(self, timeout_s: float) -> Done | None:
        """The next task that is finished; None if none is within the time, or a worker became free.

        Raises:
            ExecutorError: if workers cannot be started, or are not those that were asked for.
        """

    def close(self, *, at_once: bool) -> None:
        """End all workers: those that work too, if `at_once`."""


def check_versions(wanted: Mapping[str, str], found: Mapping[str, str], where: str) -> None:
    """Refuse a worker with other code or weights.

    Raises:
        ExecutorError: if it has.
    """
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ExecutorError(
                f"the worker on {where} has another {name} than this program ({found.get(name)!r}, not {value!r}): "
                f"results would be mixed. Install the same meddift and the same weights everywhere"
            )
