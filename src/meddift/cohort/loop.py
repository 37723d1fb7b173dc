"""`Loop`: gives scans and cases to an executor and records the results."""

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

#: How often a task is tried if its worker dies.
TRIES = 2
#: Longest wait for a task, s; then the loop checks whether it was asked to stop.
_LOOK_S = 0.5


@dataclass(frozen=True)
class Todo:
    """A case to be done, with the digests by which a later run recognises its result.

    Attributes:
        case: The case.
        key: Digest of case and settings, see `inputs.case_key`.
        stamp: Digest of sizes and times of its input files, see `inputs.stamp`.
    """

    case: Case
    key: str
    stamp: str


class Loop:
    """Runs cases until all have ended or the run is stopped.

    Args:
        todo: Cases to be done, in order.
        executor: Runs the tasks.
        out: Output folder of the cohort.
        manifest: File to which each result is added.
        stopping: Returns whether to stop. Then no task is started any more, and running tasks are finished.
        renew: Called after every task; keeps the lock.
        release: Called with the engine's answer for a scan that no case needs any more.
        pace: Counts cases and estimates the time left.
        on_progress: Called after every task with counts in words and the share of cases that have ended, 0 to 1.

    Attributes:
        stopped_by: Why no result can be written any more, such as a full disk; "" if results can be written.
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
        self.stopped_by = ""

    def run(self) -> None:
        """Run all cases.

        Raises:
            ExecutorError: if workers cannot be started.
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
        """Description of a task for a worker."""
        if isinstance(work, str):
            return {"scan": work}
        item = self._todo[work.name]
        digests = {scan: self._scans[scan].get("sha256", "") for scan in work.scans}
        folder = str(case_folder(self._out, work.name))
        return {"case": work.as_dict(), "folder": folder, "key": item.key, "stamp": item.stamp, "scans": digests}

    def _take(self, work: Case | str, done: Done) -> None:
        """Handle a task that has ended."""
        name = work if isinstance(work, str) else work.name
        answer = done.answer
        if answer is None:
            self._deaths[name] += 1
            if self._deaths[name] < TRIES:
                self._schedule.again(work)
                return
            # The reason is the same for all executors: Ray does not tell how an actor died.
            reason = f"the worker died {TRIES} times while it did this, as when memory runs out; see its log"
            answer = {"state": "failed", "reason": reason, "death": done.death}
        if "stop" in answer:
            # Nothing can be written. The case has no result, and is done again in the next run.
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
        """Write the result of a case whose worker died or whose scan cannot be encoded."""
        item, folder = self._todo[case.name], case_folder(self._out, case.name)
        make_folder(folder)
        told = {name: answer[name] for name in ("state", "reason", "death") if name in answer}
        write_result(folder, {"case": case.as_dict(), "key": item.key, "stamp": item.stamp}, told)
        self._note(case, told)

    def _note(self, case: Case, answer: Mapping[str, Any]) -> None:
        """Add the result of a case to the manifest and release scans that are not needed any more."""
        item = self._todo.pop(case.name)
        self._manifest.add(manifest_line(item, answer))
        self._pace.case(answer.get("seconds"), failed=answer["state"] != "done")
        for scan in self._schedule.finished(case):
            if scan in self._scans:
                self._release(self._scans.pop(scan))


def case_folder(out: Path, name: str) -> Path:
    """Folder with result, log and picture of a case."""
    return out / "cases" / name


def manifest_line(item: Todo, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Line of the manifest for a case that has ended."""
    kept = {name: answer[name] for name in ("state", "reason", "row", "outputs", "timing", "seconds", "cpu_seconds",
                                            "peak_bytes", "death") if name in answer}  # fmt: skip
    labels = item.case.labels
    return {"case": item.case.name, "subject": labels.subject, "files": dict(item.case.files), "key": item.key,
            "stamp": item.stamp, "at": time.time(), **kept}  # fmt: skip
