"""The loop that does all cases: one for all executors."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meddift.cohort.cases import Case
from meddift.cohort.executor import Done, Executor
from meddift.cohort.manifest import Manifest
from meddift.cohort.pace import Pace
from meddift.cohort.schedule import Schedule
from meddift.cohort.worker import write_result
from meddift.system.folders import make_folder
from meddift.system.progress import Progress

#: A task that a worker has died on is tried so often.
TRIES = 2
#: Seconds after which the loop looks whether it shall stop.
_LOOK_S = 0.5


@dataclass(frozen=True)
class Todo:
    """A case that is to be done, and by what its result is known again.

    Attributes:
        case: What.
        key: `case_key`.
        stamp: `stamp` of its inputs.
    """

    case: Case
    key: str
    stamp: str


class Loop:
    """Does cases until all are over or it shall stop.

    Args:
        todo: What is to be done, in order.
        executor: Who does it.
        out: Folder of the cohort.
        manifest: Where each result is noted.
        stopping: Whether it shall stop: no task is begun any more, and those that have begun are finished.
        renew: Called now and then; keeps a lock.
        release: Called with what an engine answered for a scan that no case needs any more.
        pace: Counts, and tells how long it will take.
        on_progress: Called after every task.
    """

    def __init__(
        self,
        todo: Sequence[Todo],
        executor: Executor,
        *,
        out: Path,
        manifest: Manifest,
        stopping: Callable[[], bool],
        renew: Callable[[], None],
        release: Callable[[Mapping[str, Any]], None],
        pace: Pace,
        on_progress: Progress,
    ) -> None:
        self._todo = {item.case.name: item for item in todo}
        self._schedule = Schedule([item.case for item in todo])
        self._executor, self._manifest, self._out = executor, manifest, out
        self._stopping, self._renew, self._release = stopping, renew, release
        self._pace, self._report = pace, on_progress
        self._flying: dict[int, Case | str] = {}
        self._deaths: Counter[str] = Counter()
        self._scans: dict[str, Mapping[str, Any]] = {}
        #: Why nothing can be written any more; "" while it can.
        self.stopped_by = ""

    def run(self) -> None:
        """Do everything.

        Raises:
            ExecutorError: if there are no workers to do it.
            OutputError: if the manifest cannot be written.
        """
        self._report(str(self._pace), self._pace.share)
        number = 0
        while self._todo:
            stop = self._stopping() or bool(self.stopped_by)
            while not stop and self._executor.free() and (work := self._schedule.next()) is not None:
                number += 1
                self._flying[number] = work
                self._executor.submit(number, self._content(work))
            if stop and not self._flying:
                return
            done = self._executor.next_done(_LOOK_S)
            self._renew()
            if done is not None:
                self._take(self._flying.pop(done.task), done)
                self._report(str(self._pace), self._pace.share)

    def _content(self, work: Case | str) -> dict[str, Any]:
        """What a worker is told."""
        if isinstance(work, str):
            return {"scan": work}
        item = self._todo[work.name]
        digests = {scan: self._scans[scan].get("sha256", "") for scan in work.scans}
        folder = str(case_folder(self._out, work.name))
        return {"case": work.as_dict(), "folder": folder, "key": item.key, "stamp": item.stamp, "scans": digests}

    def _take(self, work: Case | str, done: Done) -> None:
        """One task is over."""
        name = work if isinstance(work, str) else work.name
        answer = done.answer
        if answer is None:
            self._deaths[name] += 1
            if self._deaths[name] < TRIES:
                self._schedule.again(work)
                return
            # The same words whoever did it: Ray does not tell how an actor died.
            reason = f"the worker died {TRIES} times while it did this, as when memory runs out; see its log"
            answer = {"state": "failed", "reason": reason, "death": done.death}
        if "stop" in answer:
            # Nobody's fault but the disk's: it is not a result, and is done when there is room again.
            self.stopped_by = answer["stop"]
        elif isinstance(work, str):
            self._manifest.add({"scan": work, "at": time.time(), **answer})
            self._pace.scan(answer.get("seconds"))
            if answer["state"] == "done":
                self._scans[work] = answer
                self._schedule.encoded(work)
            else:
                for case in self._schedule.lost(work):
                    self._write(case, answer)
        elif done.answer is None:
            self._write(work, answer)
        else:
            self._note(work, answer)

    def _write(self, case: Case, answer: Mapping[str, Any]) -> None:
        """Write the result of a case that no worker could write."""
        item, folder = self._todo[case.name], case_folder(self._out, case.name)
        make_folder(folder)
        told = {name: answer[name] for name in ("state", "reason", "death") if name in answer}
        write_result(folder, {"case": case.as_dict(), "key": item.key, "stamp": item.stamp}, told)
        self._note(case, told)

    def _note(self, case: Case, answer: Mapping[str, Any]) -> None:
        """A case is over."""
        item = self._todo.pop(case.name)
        self._manifest.add(manifest_line(item, answer))
        self._pace.case(answer.get("seconds"), failed=answer["state"] != "done")
        for scan in self._schedule.finished(case):
            if scan in self._scans:
                self._release(self._scans.pop(scan))


def case_folder(out: Path, name: str) -> Path:
    """Where result, log and picture of a case lie."""
    return out / "cases" / name


def manifest_line(item: Todo, answer: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of a case that is over."""
    kept = {name: answer[name] for name in ("state", "reason", "row", "outputs", "timing", "seconds", "cpu_seconds",
                                            "peak_bytes", "death") if name in answer}  # fmt: skip
    labels = item.case.labels
    return {"case": item.case.name, "subject": labels.subject, "files": dict(item.case.files), "key": item.key,
            "stamp": item.stamp, "at": time.time(), **kept}  # fmt: skip
