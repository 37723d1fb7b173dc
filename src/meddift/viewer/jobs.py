"""Long work in the background, one piece after the other, with progress that others can look at, and an end to it."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Literal

from meddift.errors import MeddiftError
from meddift.system.progress import Progress

State = Literal["waiting", "running", "done", "failed", "cancelled"]

_LOGGER = logging.getLogger(__name__)


class CancelledError(MeddiftError):
    """Somebody has ended this work."""


@dataclass(frozen=True)
class JobState:
    """How far a piece of work is.

    Attributes:
        id: Of the job.
        kind: What is done, in a word: "prepare" or "register".
        about: What it is done for: a pair's id.
        state: How it stands.
        stage: What is being done, in words.
        fraction: Share that is done, 0 to 1.
        seconds: Since it was begun.
        message: Why it failed, in words; else "".
    """

    id: str
    kind: str
    about: str
    state: State
    stage: str = ""
    fraction: float = 0.0
    seconds: float = 0.0
    message: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("done", "failed", "cancelled")


class Job:
    """A piece of work; made by `Jobs.start`.

    Attributes:
        result: What it returns, or the error that it ends with.
    """

    def __init__(self, state: JobState, work: Callable[[Progress], Any], changed: Callable[[], None]) -> None:
        self._state, self._work, self._changed = state, work, changed
        self._stop = threading.Event()
        self._began: float | None = None
        self._lock = threading.Lock()
        self.result: Future[Any] = Future()
        # Nobody may be waiting: an error that nobody fetches is told by the state.
        self.result.add_done_callback(lambda done: done.exception())

    @property
    def state(self) -> JobState:
        """How far it is now."""
        with self._lock:
            state = self._state
            if self._began is not None and not state.is_over:
                state = replace(state, seconds=time.monotonic() - self._began)
            return state

    def cancel(self) -> None:
        """End it at the next step; what does not run yet ends at once."""
        self._stop.set()
        if self.state.state == "waiting":
            self._end("cancelled", CancelledError("ended before it began"))

    def run(self) -> None:
        """Do the work in this thread."""
        if self.state.is_over:
            return
        self._began = time.monotonic()
        self._set(state="running")
        try:
            found = self._work(self._report)
        except CancelledError as error:
            self._end("cancelled", error)
        except Exception as error:
            if not isinstance(error, MeddiftError):
                _LOGGER.exception("work in the background failed")
            self._end("failed", error)
        else:
            self._end("done", None, found)

    def _report(self, stage: str, fraction: float) -> None:
        if self._stop.is_set():
            raise CancelledError("ended by the person who asked")
        self._set(stage=stage, fraction=min(max(float(fraction), self._state.fraction), 1.0))

    def _end(self, state: State, error: Exception | None, found: Any = None) -> None:
        seconds = 0.0 if self._began is None else time.monotonic() - self._began
        message = str(error) if state == "failed" else ""
        self._set(state=state, seconds=seconds, message=message)
        if error is None:
            self.result.set_result(found)
        elif not self.result.done():
            self.result.set_exception(error)

    def _set(self, **changes: Any) -> None:
        with self._lock:
            if self._state.is_over:
                return
            self._state = replace(self._state, **changes)
        self._changed()


class Jobs:
    """A queue of work with one thread: pieces of it share the processor badly.

    Attributes:
        version: Raised whenever the state of a job changes.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._numbers = itertools.count(1)
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.version = 0

    def start(self, kind: str, about: str, work: Callable[[Progress], Any]) -> Job:
        """Put work at the end of the queue.

        Args:
            kind: See `JobState`.
            about: Likewise.
            work: Called with a function to report progress to, which raises when the work shall end.
        """
        with self._lock:
            job = Job(JobState(f"j{next(self._numbers)}", kind, about, "waiting"), work, self._note)
            self._jobs[job.state.id] = job
            if self._thread is None:
                # A daemon: nobody who leaves waits for work that they do not want.
                self._thread = threading.Thread(target=self._run, name="meddift-viewer", daemon=True)
                self._thread.start()
            self._queue.put(job)
        self._note()
        return job

    def get(self, key: str) -> Job | None:
        """The job of an id."""
        return self._jobs.get(key)

    def states(self) -> list[JobState]:
        """All jobs, in the order in which they were asked for."""
        return [job.state for job in list(self._jobs.values())]

    @property
    def is_busy(self) -> bool:
        """Whether work is going on."""
        return any(state.state == "running" for state in self.states())

    def close(self, *, wait_seconds: float = 0.0) -> None:
        """End all work.

        Args:
            wait_seconds: How long to wait for what runs to come to its next step.
        """
        for job in list(self._jobs.values()):
            job.cancel()
        self._queue.put(None)
        if self._thread is not None and wait_seconds:
            self._thread.join(wait_seconds)

    def _note(self) -> None:
        self.version += 1

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            job.run()
