"""Workers as actors of Ray, on this machine or on a cluster that shares its disk."""

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

#: Seconds to wait for an actor to begin: with no processor or device free, Ray waits for ever without a word.
_PENDING_S = 120.0
#: How often starting Ray on this machine is tried: it gives up after 30 s, which a busy machine may need and more.
_STARTS = 3
#: Seconds within which a machine answers that it listens.
_LISTENING_S = 10.0
#: Shared memory of Ray, bytes: nothing but paths and small JSON goes through it.
_OBJECT_STORE_BYTES = 100_000_000


@dataclass
class _Actor:
    """One actor, what it was asked last, and what it is doing."""

    handle: Any
    asked: Any
    since: float
    ready: bool = False
    task: int = -1


class RayActors:
    """Actors of Ray; see `Executor`.

    Args:
        count: How many.
        setup: How each is made.
        address: "local" starts Ray on this machine alone; else where a cluster is.
        memory_bytes: What each takes; Ray places it where so much is free.

    Raises:
        ExecutorError: if Ray is not installed or cannot be reached.
    """

    def __init__(self, count: int, setup: Setup, *, address: str, memory_bytes: int) -> None:
        # Nobody without the token may send code; nothing is sent to anybody.
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
            # Ray takes signals for itself; ours let running cases finish.
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)
        environment = {name: value for name, value in child_environment(setup.threads).items() if _needed(name)}
        self._actor_class = ray.remote(
            num_cpus=setup.threads,
            num_gpus=1 if setup.devices else 0,
            memory=memory_bytes or None,
            max_restarts=0,  # we put new ones in their places, and count tries
            max_task_retries=0,
            runtime_env={"env_vars": environment},
        )(RayWorker)
        self._failed_starts = 0
        self._actors = [self._start() for _ in range(count)]

    def _connect(self, address: str, count: int) -> None:
        """Reach Ray, or start it here.

        Raises:
            ExecutorError: if that is not possible.
        """
        if not self._local:
            _check_listening(address)
        tries = _STARTS if self._local else 1
        for left in reversed(range(tries)):
            try:
                self._ray.init(
                    address=address, log_to_driver=False, logging_level="warning", **self._only_local(count)
                )
            except Exception as error:  # Ray raises bare ones where it cannot start
                self._ray.shutdown()  # what had begun
                if left == 0 or "timed out" not in str(error):
                    raise ExecutorError(f"Ray cannot be reached at {address}: {error}") from error
            else:
                return

    def _only_local(self, count: int) -> dict[str, Any]:
        """What can be said only of a cluster that is started here."""
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
        """How many tasks can be submitted now."""
        return sum(actor.ready and actor.task < 0 for actor in self._actors)

    def submit(self, task: int, content: Mapping[str, Any]) -> None:
        """Begin a task in the first actor that is free."""
        actor = next(actor for actor in self._actors if actor.ready and actor.task < 0)
        actor.task, actor.asked = task, actor.handle.do.remote(dict(content))

    def next_done(self, timeout_s: float) -> Done | None:
        """The next task that is finished; see `Executor.next_done`."""
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
        """Say why actors do not begin, if none of all has for long."""
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
        """Put a new actor into the place of one that died."""
        if not actor.ready:
            self._failed_starts += 1
            if self._failed_starts >= 3:
                raise ExecutorError(f"workers end before they can work: {error}") from error
        self._actors[self._actors.index(actor)] = self._start()
        return Done(actor.task, death=_how(error)) if actor.task >= 0 else None

    def close(self, *, at_once: bool) -> None:
        """End all actors, and Ray if it was started here."""
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._ray.shutdown()


class RayWorker:
    """A `Worker` that says where it is.

    Args:
        factory: `module:function` that makes the engine.
        settings: What the function is given.
    """

    def __init__(self, factory: str, settings: Mapping[str, Any]) -> None:
        self._worker = Worker(factory, settings)

    def versions(self) -> dict[str, Any]:
        """What all workers must agree in."""
        return {"host": socket.gethostname(), "versions": dict(self._worker.engine.versions())}

    def do(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Do a task."""
        return self._worker.do(task)


def _check_listening(address: str) -> None:
    """Whether anybody listens at an address of the form [ray://]host:port; Ray itself finds out in some minutes.

    Raises:
        ExecutorError: if not.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():  # a name that Ray knows, such as "auto"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENING_S).close()
    except (OSError, OverflowError) as error:
        raise ExecutorError(f"Ray cannot be reached at {address}: {error}") from error


def _needed(name: str) -> bool:
    """Whether a variable goes along to the workers: those of ours and of threads; machines differ in the rest."""
    return name.endswith("_THREADS") or name.startswith(("MEDDIFT_", "OMP_")) or name == "PYTHONPATH"


def _how(error: Exception) -> str:
    """How an actor died, without names that differ from run to run."""
    text = str(error)
    return "killed by SIGKILL; the system does this when memory runs out" if "SIGKILL" in text else "it ended"
