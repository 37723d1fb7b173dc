"""Worker process, `python -m meddift.cohort.worker`, which reads tasks from stdin, one line of JSON each."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from meddift.cohort.cases import Case
from meddift.cohort.needs import Needs
from meddift.errors import MeddiftError, OutputError
from meddift.system.atomic import reason_of, write_json
from meddift.system.folders import make_folder
from meddift.system.temporary import sweep_tree

#: Error numbers that mean that nothing can be written; they stop the run and do not fail the case.
_NO_ROOM = (errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC))


class Engine(Protocol):
    """Interface of the code that processes scans and cases."""

    def versions(self) -> Mapping[str, str]:
        """Name -> digest of code or weights, which must be equal in all workers."""

    def needs(self, cases: Sequence[Case]) -> Needs:
        """Estimate memory and time of one worker for some cases."""

    def encode(self, scan: str) -> dict[str, Any]:
        """Encode a scan and store its features.

        Args:
            scan: Path of the scan.

        Returns:
            Small dictionary, ready for JSON; "made" says whether the features had to be computed.
        """

    def run(self, case: Case) -> dict[str, Any]:
        """Process a case and write its files.

        Args:
            case: The case.

        Returns:
            Dictionary, ready for JSON, with "row" (columns of the table), "outputs" (paths), "timing" (seconds by
            stage) and further entries for `result.json`.
        """


class Worker:
    """Does tasks with one engine; used by processes and by Ray actors.

    Args:
        factory: `module:function` that creates the engine.
        settings: Argument of that function.

    Attributes:
        engine: The engine.
    """

    def __init__(self, factory: str, settings: Mapping[str, Any]) -> None:
        module, _, function = factory.partition(":")
        self.engine: Engine = getattr(importlib.import_module(module), function)(settings)

    def do(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Do a task; errors become part of the answer.

        Args:
            task: {"scan": path} to encode a scan, or {"case", "folder", "key", "stamp", "scans"} to process a case.

        Returns:
            Dictionary, ready for JSON, with "state" ("done" or "failed"), "reason", "seconds", "cpu_seconds" and the
            answer of the engine. If nothing can be written, "stop" says why; the case is then not at fault.
        """
        started, used = time.perf_counter(), time.process_time()
        answer = self._encode(task) if "scan" in task else self._run(task, started)
        return {**answer, "seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used}

    def _encode(self, task: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return {"state": "done", "reason": "", **self.engine.encode(task["scan"])}
        except (Exception, MemoryError) as error:
            return _failure(error)

    def _run(self, task: Mapping[str, Any], started: float) -> dict[str, Any]:
        case, folder = Case.from_dict(task["case"]), Path(task["folder"])
        try:
            make_folder(folder)
            sweep_tree(folder)
            with logged(folder / "log.txt"):
                try:
                    answer = {"state": "done", "reason": "", **self.engine.run(case)}
                except (Exception, MemoryError) as error:
                    traceback.print_exc()
                    answer = _failure(error)
            if "stop" not in answer:
                inputs = {path: task["scans"].get(path) or _digest(path) for path in case.inputs}
                answer["timing"] = {**answer.get("timing", {}), "case": time.perf_counter() - started}
                write_result(folder, task, {**answer, "inputs": inputs})
        except OSError as error:
            return _failure(error)
        return answer


def write_result(folder: Path, task: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Write `result.json`, the last file of a case.

    Args:
        folder: Folder of the case.
        task: The task, see `Worker.do`.
        answer: Answer of the worker.

    Raises:
        OutputError: if the file cannot be written.
    """
    told = {name: task[name] for name in ("key", "stamp")}
    write_json({"case": task["case"]["name"], **told, **answer}, folder / "result.json")


def _digest(path: str) -> str:
    from meddift.cohort.inputs import content_digest

    try:
        return content_digest(path)
    except OSError:
        return ""


def _failure(error: BaseException) -> dict[str, Any]:
    """The answer for a task that raised an error."""
    text = " ".join(str(error).split()) or type(error).__name__
    reason = text if isinstance(error, MeddiftError) else f"{type(error).__name__}: {text}"
    answer = {"state": "failed", "reason": reason[:2000]}
    if isinstance(error, OutputError):
        return {**answer, "stop": reason}
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return {**answer, "stop": f"cannot write {error.filename or 'results'}: {reason_of(error)}"}
    return answer


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Send stdout and stderr of this process to a file inside a `with` block, output of C libraries included."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("meddift")
    level = logger.level
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        logger.removeHandler(handler)
        logger.setLevel(level)
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for number in (*kept, file):
            os.close(number)


def main() -> int:
    """Do the tasks that arrive on stdin until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the process that started this one
    # Libraries may print to stdout. From here on stdout is sent to stderr, and answers use a separate stream.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    setup = json.loads(sys.stdin.readline())
    from meddift.system.children import end_with_parent

    end_with_parent(int(setup["parent"]))
    try:
        worker = Worker(setup["factory"], setup["settings"])
        _say(answers, {"ready": dict(worker.engine.versions())})
    except Exception as error:
        traceback.print_exc()
        _say(answers, {"fatal": _failure(error)["reason"]})
        return 1
    for line in sys.stdin:
        task = json.loads(line)
        _say(answers, {"task": task["task"], "answer": worker.do(task)})
    return 0


def _say(stream: IO[str], content: Mapping[str, Any]) -> None:
    stream.write(json.dumps(content, allow_nan=False) + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
