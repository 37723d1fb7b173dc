"""Background jobs, which run one after the other, report progress and can be cancelled."""

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
    """The job was cancelled."""


@dataclass(frozen=True)
class JobState:
    """State of a job.

    Attributes:
        id: Id of the job.
        kind: Kind of work, "prepare" or "register".
        about: Id of the pair.
        state: Whether the job waits, runs or has ended, and how.
        stage: Current stage, in words.
        fraction: Share of the work that is done, 0 to 1.
        seconds: Time since the start, s.
        message: Why the job failed; "" if it did not.
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
        """Whether the job has ended."""
        return self.state in ("done", "failed", "cancelled")


class Job:
    """A background job; created by `Jobs.start`.

    Attributes:
        result: Future with the return value or the exception of the work.
    """

    def __init__(self, state: JobState, work: Callable[[Progress], Any], changed: Callable[[], None]) -> None:
        self._state, self._work, self._changed = state, work, changed
        self._stop = threading.Event()
        self._began: float | None = None
        self._lock = threading.Lock()
        self.result: Future[Any] = Future()
        # The future may never be read; an error is reported by the state as well.
        self.result.add_done_callback(lambda done: done.exception())

    @property
    def state(self) -> JobState:
        """The current state."""
        with self._lock:
            state = self._state
            if self._began is not None and not state.is_over:
                state = replace(state, seconds=time.monotonic() - self._began)
            return state

    def cancel(self) -> None:
        """Cancel the job: a running one ends at its next step, a waiting one at once."""
        self._stop.set()
        if self.state.state == "waiting":
            self._end("cancelled", CancelledError("ended before it began"))

    def run(self) -> None:
        """Run the work in the calling thread."""
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
    """A queue of jobs with one thread, since each job uses all processors.

    Attributes:
        version: Number that increases whenever the state of a job changes.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._numbers = itertools.count(1)
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.version = 0

    def start(self, kind: str, about: str, work: Callable[[Progress], Any]) -> Job:
        """Put a job at the end of the queue.

        Args:
            kind: See `JobState`.
            about: See `JobState`.
            work: Function that does the work. Its argument reports progress, and raises CancelledError after `cancel`.
        """
        with self._lock:
            job = Job(JobState(f"j{next(self._numbers)}", kind, about, "waiting"), work, self._note)
            self._jobs[job.state.id] = job
            if self._thread is None:
                # A daemon thread, so that the end of the program does not wait for it.
                self._thread = threading.Thread(target=self._run, name="meddift-viewer", daemon=True)
                self._thread.start()
            self._queue.put(job)
        self._note()
        return job

    def get(self, key: str) -> Job | None:
        """The job with an id; None if there is none."""
        return self._jobs.get(key)

    def states(self) -> list[JobState]:
        """States of all jobs, in the order in which they were started."""
        return [job.state for job in list(self._jobs.values())]

    @property
    def is_busy(self) -> bool:
        """Whether a job is running or waiting."""
        return any(state.state == "running" for state in self.states())

    def close(self, *, wait_seconds: float = 0.0) -> None:
        """Cancel all jobs.

        Args:
            wait_seconds: Longest time to wait for the running job to end, s.
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
