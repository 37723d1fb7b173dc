"""Workers as processes of this machine, each told what to do by lines of JSON."""

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

#: So many workers in a row that end before they can work mean that none ever will.
_MOST_FAILED_STARTS = 3


class _Process:
    """One worker and what it is doing."""

    def __init__(self, number: int, setup: Setup, log: Path, said: queue.SimpleQueue[tuple[_Process, Any]]) -> None:
        self.number, self.log, self.task, self.ready = number, log, -1, False
        environment = child_environment(setup.threads)
        if setup.devices:
            # Within the worker its only device is the first one.
            environment["CUDA_VISIBLE_DEVICES"] = setup.devices[number]
        with log.open("ab") as stream:
            # A session of its own: Ctrl-C of the terminal is for this process, which then decides.
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
        """Send a line; one that has died is noticed by its silence."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps(content).encode() + b"\n")
            self.process.stdin.flush()

    def _listen(self, said: queue.SimpleQueue[tuple[_Process, Any]]) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # half a line of one that was killed
                    said.put((self, json.loads(line)))
        said.put((self, None))

    def hang_up(self) -> None:
        """Say that there is nothing more to do."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def wait(self) -> int:
        """Exit code, once it has ended; one that does not is killed."""
        self.hang_up()
        try:
            code = self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._listener.join()
        return code


class Processes:
    """Spawned processes; see `Executor`.

    Args:
        count: How many.
        setup: How each is made.
        logs: Folder for what they say when they are not on a case.
    """

    def __init__(self, count: int, setup: Setup, logs: Path) -> None:
        self._setup, self._logs = setup, logs
        self._said: queue.SimpleQueue[tuple[_Process, Any]] = queue.SimpleQueue()
        self._failed_starts = 0
        self._workers = [self._start(number) for number in range(count)]

    def _start(self, number: int) -> _Process:
        return _Process(number, self._setup, self._logs / f"worker-{number}.log", self._said)

    def free(self) -> int:
        """How many tasks can be submitted now."""
        return sum(worker.ready and worker.task < 0 for worker in self._workers)

    def submit(self, task: int, content: Mapping[str, Any]) -> None:
        """Begin a task in the first worker that is free."""
        worker = next(worker for worker in self._workers if worker.ready and worker.task < 0)
        worker.task = task
        worker.say({"task": task, **content})

    def next_done(self, timeout_s: float) -> Done | None:
        """The next task that is finished; see `Executor.next_done`."""
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
        """Put a new worker into the place of one that ended without being asked to."""
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
        """End all workers."""
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
