"""Running methods on cases: resumable, one process each, one result file each."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import meddift
from meddift.errors import OptionsError
from meddift.system.atomic import write_json
from meddift.system.children import child_environment
from meddift.system.progress import Progress, silent
from meddift.system.temporary import sweep_tree, temporary_folder
from meddift_lab.methods.answer import Method
from meddift_lab.running.case import Case, StoredCase, store_case
from meddift_lab.running.child import Ended, run_child
from meddift_lab.running.folder import claim_run_folder

#: Raised when results of older code cannot be read or compared any more.
LAYOUT = 1


@dataclass(frozen=True)
class RunSettings:
    """What is the same for all methods of a run.

    Attributes:
        threads: How many threads each process may use.
        timeout_s: Seconds after which a method is stopped and counts as failed; None = never.
        retry_failed: Whether what failed is tried again; otherwise it stays a row of the table.
        redo: Names of methods that are run again in any case.
    """

    threads: int = 1
    timeout_s: float | None = 3600.0
    retry_failed: bool = False
    redo: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Validate."""
        if self.threads < 1:
            raise OptionsError(f"at least one thread is needed, got {self.threads}")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise OptionsError(f"a timeout must be more than 0 seconds, got {self.timeout_s}")


def run_methods(
    cases: Sequence[Case],
    methods: Sequence[Method],
    folder: Path,
    *,
    settings: RunSettings | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Run every method on every case, leaving out what is done already.

    The folder then holds `cases/NAME/` (scans and points) and `results/METHOD/CASE.json`. Each file appears whole or
    not at all, so a run may be killed at any moment and started again; results whose settings, versions, code or
    scans have changed are made anew.

    Args:
        cases: The cases.
        methods: The methods.
        folder: Output folder; created if it does not exist.
        settings: Threads, time limit and repetition; None = defaults.
        on_progress: Called with the current stage and the share of the work that is done, 0 to 1.

    Raises:
        OptionsError: if there is no case or no method.
        OutputError: if the folder cannot be written to.
        MeddiftError: if a case cannot be read or made.
    """
    how = settings or RunSettings()
    report = on_progress or silent
    if not cases or not methods:
        raise OptionsError("an evaluation needs at least one case and one method")
    names = [case.name for case in cases]
    if len(set(names)) != len(names):
        raise OptionsError("cases of one run need different names")
    claim_run_folder(folder)
    for part in ("cases", "results"):
        (folder / part).mkdir(exist_ok=True)
        sweep_tree(folder / part)
    total, done = len(cases) * len(methods), 0
    for case in cases:
        report(f"{case.name}: preparing", done / total)
        stored = store_case(case, folder / "cases" / case.name)
        for method in methods:
            report(f"{case.name}: {method.title}", done / total)
            run_one(stored, method, folder, settings=how)
            done += 1
    report("done", 1.0)


def run_one(case: StoredCase, method: Method, folder: Path, *, settings: RunSettings) -> dict[str, Any]:
    """One method on one case, unless its result is there.

    Returns:
        The result as it stands in its file.
    """
    path = folder / "results" / method.name / f"{case.name}.json"
    key = result_key(case, method, settings)
    kept = read_result(path)
    if kept is not None and kept["key"] == key and method.name not in settings.redo:
        again = kept["status"] == "skipped" or (kept["status"] != "ok" and settings.retry_failed)
        if not again:
            return kept
    result: dict[str, Any] = {
        "layout": LAYOUT,
        "key": key,
        "case": case.name,
        "case_digest": case.digest,
        "method": method.name,
        "title": method.title,
        "settings": json.loads(json.dumps(dict(method.settings))),
        "source": method.source,
        "versions": {"meddift": meddift.__version__, "python": platform.python_version(), **method.versions()},
        "threads": settings.threads,
    }
    reason = method.unavailable()
    if reason is not None:
        result |= {"status": "skipped", "reason": reason}
    else:
        result |= _measured(case, method, settings)
    path.parent.mkdir(exist_ok=True)
    write_json(result, path)
    return result


def result_key(case: StoredCase, method: Method, settings: RunSettings) -> str:
    """sha256 of all that decides a result: scans, points, settings, versions, threads; for meddift also its code."""
    content = {
        "layout": LAYOUT,
        "case": case.digest,
        "method": method.name,
        "settings": dict(method.settings),
        "versions": method.versions(),
        "threads": settings.threads,
        "code": code_digest() if method.own else "",
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_result(path: Path) -> dict[str, Any] | None:
    """A result file; None if there is none, or it is not one of this layout."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(content, dict) and content.get("layout") == LAYOUT and isinstance(content.get("key"), str)
    return content if whole else None


#: Parts of the package that decide answers.
_ANSWERING = (
    *("body.py", "geometry", "points.py", "system", "volume.py"),
    *("models", "features", "matching", "registration", "pipeline"),
)


@cache
def code_digest() -> str:
    """sha256 of the code and the built-in weights that decide what meddift answers."""
    root = Path(meddift.__file__).parent
    digest = hashlib.sha256()
    for part in (
        "geometry",
        "volume.py",
        "points.py",
        "body.py",
        "system",
        "models",
        "features",
        "matching",
        "pipeline",
        "registration",
    ):
        place = root / part
        for path in _content_files(place):
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _content_files(place: Path) -> Iterable[Path]:
    if place.is_file():
        return [place]
    return sorted(p for p in place.rglob("*") if p.suffix in (".py", ".toml", ".safetensors") and p.is_file())


def _measured(case: StoredCase, method: Method, settings: RunSettings) -> dict[str, Any]:
    """Run the worker and put its answer and what it took together."""
    with temporary_folder("evaluation") as work:
        job = {
            "parent": os.getpid(),
            "method": method.name,
            "fixed": str(case.fixed.resolve()),
            "moving": str(case.moving.resolve()),
            "points_ras_mm": case.asked.positions.tolist(),
            "mask": None if case.mask is None else str(case.mask.resolve()),
            "labels": None if case.labels is None else [str(path.resolve()) for path in case.labels],
        }
        (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "meddift_lab.running.worker",
            str(work / "job.json"),
            str(work / "answer.json"),
        ]
        ended = run_child(
            command,
            environment=child_environment(settings.threads),
            log=work / "log.txt",
            timeout_s=settings.timeout_s,
        )
        answer = _answer(work, ended, settings)
    resources = ended.resources.as_dict()
    peaks = answer.get("stages", {}).get("peak_bytes", {}).values()
    if peaks:
        # The system's own count begins before the new program does, and so includes what this process holds.
        resources["peak_bytes"] = max(peaks)
    return {**answer, "resources": resources}


def _answer(work: Path, ended: Ended, settings: RunSettings) -> dict[str, Any]:
    """What the worker wrote, or why it wrote nothing."""
    if ended.timed_out:
        return {"status": "failed", "reason": f"stopped after {settings.timeout_s:g} s"}
    path = work / "answer.json"
    if ended.code == 0 and path.is_file():
        answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return answer
    last = (work / "log.txt").read_text(encoding="utf-8", errors="replace").strip()[-1000:]
    how = f"killed by signal {-ended.code}" if ended.code < 0 else f"exit code {ended.code}"
    return {"status": "failed", "reason": f"{how}: {last or 'it said nothing'}"}


__all__ = ["RunSettings", "code_digest", "read_result", "result_key", "run_methods", "run_one"]
