"""`RayActors`: workers as actors of Ray, on this machine or on a cluster with a shared disk."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meddift.cohort.executor import Done, ExecutorError, Setup, check_versions
from meddift.cohort.worker import Worker
from meddift.system.children import child_environment
from meddift.system.signals import STOP_SIGNALS

#: Longest wait for a first actor, s: without a free processor or device, Ray waits for ever without a message.
_PENDING_S = 120.0
#: How often starting Ray on this machine is tried: Ray gives up after 30 s, but a busy machine may need longer.
_STARTS = 3
#: Longest wait for a connection to the address of a cluster, s.
_LISTENING_S = 10.0
#: Size of the shared memory of Ray, bytes: only paths and small JSON pass through it.
_OBJECT_STORE_BYTES = 100_000_000


@dataclass
class _Actor:
    """One actor, its last request and its current task."""

    handle: Any
    asked: Any
    since: float
    ready: bool = False
    task: int = -1


class RayActors:
    """Actors of Ray; implements `Executor`.

    Args:
        count: Number of workers.
        setup: How each worker is created.
        address: "local" starts Ray on this machine; else the address of a cluster.
        memory_bytes: Memory of each worker, bytes; Ray places an actor on a machine with this much free memory.

    Raises:
        ExecutorError: if Ray is not installed or cannot be reached.
    """

    def __init__(self, count: int, setup: Setup, *, address: str, memory_bytes: int) -> None:
        # Only clients with the token may send code, and usage statistics are off.
        if "ray" in sys.modules and "RAY_AUTH_MODE" not in os.environ:
            raise ExecutorError(
                "Ray was imported before it was told to ask for a token; set RAY_AUTH_MODE=token before that"
            )
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
        except ImportError as error:
            raise ExecutorError("Ray is not installed: pip install 'meddift[cluster]', or leave out --ray") from error
        self._ray, self._setup, self._local = ray, setup, address == "local"
        handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        try:
            self._connect(address, count)
        finally:
            # Ray replaces signal handlers; ours let running cases finish.
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)
        environment = {name: value for name, value in child_environment(setup.threads).items() if _needed(name)}
        self._actor_class = ray.remote(
            num_cpus=setup.threads,
            num_gpus=1 if setup.devices else 0,
            memory=memory_bytes or None,
            max_restarts=0,  # this class replaces actors itself and counts tries
            max_task_retries=0,
            runtime_env={"env_vars": environment},
        )(RayWorker)
        self._failed_starts = 0
        self._actors = [self._start() for _ in range(count)]

    def _connect(self, address: str, count: int) -> None:
        """Connect to a Ray cluster, or start Ray on this machine.

        Raises:
            ExecutorError: if that fails.
        """
        if not self._local:
            _check_listening(address)
        tries = _STARTS if self._local else 1
        for left in reversed(range(tries)):
            try:
                self._ray.init(
                    address=address, log_to_driver=False, logging_level="warning", **self._only_local(count)
                )
            except Exception as error:  # Ray raises plain `Exception` if it cannot start
                self._ray.shutdown()  # processes that were already started
                if left == 0 or "timed out" not in str(error):
                    raise ExecutorError(f"Ray cannot be reached at {address}: {error}") from error
            else:
                return

    def _only_local(self, count: int) -> dict[str, Any]:
        """Arguments of `ray.init` for a cluster that is started on this machine."""
        if not self._local:
            return {}
        return {
            "include_dashboard": False,
            "num_cpus": count * self._setup.threads,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }

    def _start(self) -> _Actor:
        handle = self._actor_class.remote(self._setup.factory, dict(self._setup.settings))
        return _Actor(handle, handle.versions.remote(), time.monotonic())

    def free(self) -> int:
        """Number of tasks that can be submitted now."""
        return sum(actor.ready and actor.task < 0 for actor in self._actors)

    def submit(self, task: int, content: Mapping[str, Any]) -> None:
        """Start a task in the first free actor."""
        actor = next(actor for actor in self._actors if actor.ready and actor.task < 0)
        actor.task, actor.asked = task, actor.handle.do.remote(dict(content))

    def next_done(self, timeout_s: float) -> Done | None:
        """Wait for the next task that ends; see `Executor.next_done`."""
        waiting = {actor.asked: actor for actor in self._actors if actor.asked is not None}
        found, _ = self._ray.wait(list(waiting), num_returns=1, timeout=timeout_s) if waiting else ([], [])
        if not found:
            self._check_pending()
            return None
        actor = waiting[found[0]]
        try:
            answer = self._ray.get(found[0])
        except self._ray.exceptions.RayActorError as error:
            return self._died(actor, error)
        except self._ray.exceptions.RayTaskError as error:
            raise ExecutorError(f"a worker cannot begin: {error.cause}") from error
        actor.asked = None
        if not actor.ready:
            check_versions(self._setup.versions, answer["versions"], answer["host"])
            actor.ready, self._failed_starts = True, 0
            return None
        task, actor.task = actor.task, -1
        return Done(task, answer)

    def _check_pending(self) -> None:
        """Raise an error that says why, if no actor has started within the longest wait."""
        if any(actor.ready for actor in self._actors):
            return
        if time.monotonic() - min(actor.since for actor in self._actors) > _PENDING_S:
            free = self._ray.available_resources()
            raise ExecutorError(
                f"no worker has begun within {_PENDING_S:.0f} s. Each needs {self._setup.threads} processor(s)"
                f"{' and 1 GPU' if self._setup.devices else ''}; the cluster has free: {free.get('CPU', 0):g} "
                f"processors, {free.get('GPU', 0):g} GPUs, {free.get('memory', 0) / 1e9:.1f} GB of memory"
            )

    def _died(self, actor: _Actor, error: Exception) -> Done | None:
        """Replace an actor that died."""
        if not actor.ready:
            self._failed_starts += 1
            if self._failed_starts >= 3:
                raise ExecutorError(f"workers end before they can work: {error}") from error
        self._actors[self._actors.index(actor)] = self._start()
        return Done(actor.task, death=_how(error)) if actor.task >= 0 else None

    def close(self, *, at_once: bool) -> None:
        """End all actors, and Ray if it was started on this machine."""
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._ray.shutdown()


class RayWorker:
    """A `Worker` inside an actor, which also reports its machine.

    Args:
        factory: `module:function` that creates the engine.
        settings: Argument of that function.
    """

    def __init__(self, factory: str, settings: Mapping[str, Any]) -> None:
        self._worker = Worker(factory, settings)

    def versions(self) -> dict[str, Any]:
        """Versions, which must be equal in all workers, and the name of the machine."""
        return {"host": socket.gethostname(), "versions": dict(self._worker.engine.versions())}

    def do(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Do a task; see `Worker.do`."""
        return self._worker.do(task)


def _check_listening(address: str) -> None:
    """Check that a server listens at an address of the form [ray://]host:port; Ray itself needs minutes for this.

    Raises:
        ExecutorError: if no connection is possible.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():  # a name known to Ray, such as "auto"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENING_S).close()
    except (OSError, OverflowError) as error:
        raise ExecutorError(f"Ray cannot be reached at {address}: {error}") from error


def _needed(name: str) -> bool:
    """Whether an environment variable is passed to workers: those of meddift and of thread counts."""
    return name.endswith("_THREADS") or name.startswith(("MEDDIFT_", "OMP_")) or name == "PYTHONPATH"


def _how(error: Exception) -> str:
    """How an actor died, in words that are equal in all runs."""
    text = str(error)
    return "killed by SIGKILL; the system does this when memory runs out" if "SIGKILL" in text else "it ended"
