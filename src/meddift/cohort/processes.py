"""`Processes`: workers as processes of this machine, which receive tasks as lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meddift.cohort.executor import Done, ExecutorError, Setup, check_versions
from meddift.system.children import child_environment

#: The run fails when this many workers in a row end before they are ready.
_MOST_FAILED_STARTS = 3


class _Process:
    """One worker process and its current task."""

    def __init__(self, number: int, setup: Setup, log: Path, said: queue.SimpleQueue[tuple[_Process, Any]]) -> None:
        self.number, self.log, self.task, self.ready = number, log, -1, False
        environment = child_environment(setup.threads)
        if setup.devices:
            # Inside the worker its only device has index 0.
            environment["CUDA_VISIBLE_DEVICES"] = setup.devices[number]
        with log.open("ab") as stream:
            # A session of its own, so that Ctrl-C in the terminal reaches this process only, which then ends workers.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "meddift.cohort.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=environment,
                start_new_session=sys.platform != "win32",
            )
        self._listener = threading.Thread(target=self._listen, args=(said,), daemon=True)
        self._listener.start()
        self.say({"parent": os.getpid(), "factory": setup.factory, "settings": dict(setup.settings)})

    def say(self, content: Mapping[str, Any]) -> None:
        """Send a line of JSON; a worker that has died is noticed when its output ends."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps(content).encode() + b"\n")
            self.process.stdin.flush()

    def _listen(self, said: queue.SimpleQueue[tuple[_Process, Any]]) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # an incomplete line of a worker that was killed
                    said.put((self, json.loads(line)))
        said.put((self, None))

    def hang_up(self) -> None:
        """Close the input of the worker, which then ends."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def wait(self) -> int:
        """Wait for the end and return the exit code; a worker that does not end is killed."""
        self.hang_up()
        try:
            code = self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._listener.join()
        return code


class Processes:
    """Spawned processes; implements `Executor`.

    Args:
        count: Number of workers.
        setup: How each worker is created.
        logs: Folder for the output of workers outside of cases.
    """

    def __init__(self, count: int, setup: Setup, logs: Path) -> None:
        self._setup, self._logs = setup, logs
        self._said: queue.SimpleQueue[tuple[_Process, Any]] = queue.SimpleQueue()
        self._failed_starts = 0
        self._workers = [self._start(number) for number in range(count)]

    def _start(self, number: int) -> _Process:
        return _Process(number, self._setup, self._logs / f"worker-{number}.log", self._said)

    def free(self) -> int:
        """Number of tasks that can be submitted now."""
        return sum(worker.ready and worker.task < 0 for worker in self._workers)

    def submit(self, task: int, content: Mapping[str, Any]) -> None:
        """Start a task in the first free worker."""
        worker = next(worker for worker in self._workers if worker.ready and worker.task < 0)
        worker.task = task
        worker.say({"task": task, **content})

    def next_done(self, timeout_s: float) -> Done | None:
        """Wait for the next task that ends; see `Executor.next_done`."""
        try:
            worker, said = self._said.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if said is None:
            return self._died(worker)
        if "fatal" in said:
            raise ExecutorError(f"a worker cannot begin: {said['fatal']}")
        if "ready" in said:
            check_versions(self._setup.versions, said["ready"], "this machine")
            worker.ready, self._failed_starts = True, 0
            return None
        worker.task = -1
        return Done(int(said["task"]), said["answer"])

    def _died(self, worker: _Process) -> Done | None:
        """Replace a worker that ended unexpectedly."""
        code = worker.wait()
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS:
                last = worker.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                raise ExecutorError(
                    f"workers end before they can work ({_how(code)}): {''.join(last) or 'they say nothing'}; "
                    f"everything they say is in {worker.log}"
                )
        self._workers[worker.number] = self._start(worker.number)
        return Done(worker.task, death=_how(code)) if worker.task >= 0 else None

    def close(self, *, at_once: bool) -> None:
        """End all workers; see `Executor.close`."""
        for worker in self._workers:
            if at_once or worker.task >= 0:
                worker.process.kill()
            worker.hang_up()
        for worker in self._workers:
            worker.wait()


def _how(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; the system does this when memory runs out" if name == "SIGKILL" else ""
    return f"killed by {name}{hint}"
