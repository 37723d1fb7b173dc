"""`run` does the cases of a plan; `report` writes table and report from all results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from meddift.cohort.executor import Executor
from meddift.cohort.folder import check_out, planned, write_frame
from meddift.cohort.lock import locked
from meddift.cohort.loop import Loop, Todo, case_folder, manifest_line
from meddift.cohort.manifest import Manifest, latest_results, manifest_name
from meddift.cohort.pace import Pace
from meddift.cohort.plan import Plan
from meddift.cohort.preparing import Prepared, prepare, read_result
from meddift.cohort.processes import Processes
from meddift.cohort.table import as_table, described, table_row
from meddift.cohort.worker import write_result
from meddift.errors import OutputError
from meddift.system.atomic import write_json, write_text
from meddift.system.folders import make_folder
from meddift.system.progress import Progress, silent
from meddift.system.signals import noted_stop_signals
from meddift.system.temporary import sweep_tree


@dataclass(frozen=True)
class Outcome:
    """State of a cohort after a run.

    Attributes:
        out: Output folder of the cohort.
        total: Number of all cases of the plan, over all shards.
        counts: State ("done", "failed" or "refused") -> number of cases.
        stopped: Whether the run was asked to stop before all cases were done.
        table: Path of `cohort.tsv`; None if results of other shards are still missing.
    """

    out: Path
    total: int
    counts: Mapping[str, int]
    stopped: bool = False
    table: Path | None = None

    @property
    def left(self) -> int:
        """Number of cases without a result."""
        return self.total - sum(self.counts.values())

    @property
    def complete(self) -> bool:
        """Whether every case is done."""
        return self.counts.get("done", 0) == self.total


def run(plan: Plan, *, on_progress: Progress | None = None, prepared: Prepared | None = None) -> Outcome:
    """Do all cases of a plan that are not done yet.

    The run may be killed at any moment and called again: finished cases are not repeated. After a first signal that
    asks to stop, running cases are finished; a second one raises KeyboardInterrupt.

    Args:
        plan: The plan.
        on_progress: Called after every task with counts, rate and time left as text, and the share of finished cases,
            0 to 1.
        prepared: Result of `prepare` for this plan, if it was called before.

    Returns:
        State of the cohort. Cases that failed are rows of the table with the reason.

    Raises:
        ExecutorError: if workers cannot be started.
        OutputError: if results can no longer be written; finished cases are kept.
        MeddiftError: if `prepare` raises one.
    """
    ready = prepared or prepare(plan)
    out, work = plan.out_path, plan.work_path
    check_out(out, ready.settings, source=plan.source_path)
    write_frame(out, ready.settings, source=plan.source_path, cases=ready.total)
    make_folder(work)
    name = manifest_name(*plan.shard)
    with (
        locked(work / f"{Path(name).stem}.lock") as renew,
        Manifest(out / name) as manifest,
        noted_stop_signals() as signals,
    ):
        for item in ready.found:
            manifest.add(manifest_line(item, read_result(out, item.case.name) or {}))
        for item in ready.refused:
            _refuse(out, item, manifest)
        crew = ready.crew
        over = len(ready.mine) - len(ready.todo)
        pace = Pace(len(ready.mine), crew.scans, over=over, workers=crew.workers)
        if ready.todo:
            _do(ready, manifest, pace, lambda: bool(signals), renew, on_progress or silent)
        stopped = bool(signals) and len(latest_results(out)) < ready.total
    if plan.shard[1] > 1:
        return Outcome(out, ready.total, _counts(latest_results(out)), stopped)
    return replace(report(out), stopped=stopped)


def report(out: Path | str) -> Outcome:
    """Write table and report again from the results of all shards.

    Args:
        out: Output folder of the cohort.

    Raises:
        MissingFileError: if the folder holds no cohort.
        OutputError: if a file cannot be written.
    """
    from meddift.cohort.page import write_page

    folder = Path(out).absolute()
    content = planned(folder)
    # Remove files of killed runs that were not removed when their case was repeated.
    sweep_tree(folder)
    results = latest_results(folder)
    total = max(int(content["cases"]), len(results))
    rows = [table_row(line) for line in results.values()]
    write_text(as_table(rows), folder / "cohort.tsv")
    write_json(described(), folder / "cohort.json")
    write_page(folder, results, content, total=total)
    return Outcome(folder, total, _counts(results), table=folder / "cohort.tsv")


def _refuse(out: Path, item: Todo, manifest: Manifest) -> None:
    answer = {"state": "refused", "reason": item.case.refusal}
    folder = case_folder(out, item.case.name)
    make_folder(folder)
    write_result(folder, {"case": item.case.as_dict(), "key": item.key, "stamp": item.stamp}, answer)
    manifest.add(manifest_line(item, answer))


def _do(
    ready: Prepared,
    manifest: Manifest,
    pace: Pace,
    stopping: Callable[[], bool],
    renew: Callable[[], None],
    on_progress: Progress,
) -> None:
    """Run the cases; workers are ended in any case."""
    executor = _executor(ready)
    finished = False
    try:
        loop = Loop(
            ready.todo, executor, out=ready.plan.out_path, manifest=manifest, stopping=stopping, renew=renew,
            release=_release(ready.plan), pace=pace, on_progress=on_progress,
        )  # fmt: skip
        loop.run()
        finished = True
    finally:
        executor.close(at_once=not finished)
    if loop.stopped_by:
        raise OutputError(
            f"stopped, as nothing can be written any more: {loop.stopped_by} What was finished is kept in "
            f"{ready.plan.out_path}; the same command goes on from there"
        )


def _executor(ready: Prepared) -> Executor:
    crew, setup = ready.crew, ready.setup
    if ready.plan.ray is None:
        return Processes(crew.workers, setup, ready.plan.work_path)
    from meddift.cohort.ray_actors import RayActors

    return RayActors(crew.workers, setup, address=ready.plan.ray, memory_bytes=crew.needs.memory_bytes)


def _release(plan: Plan) -> Callable[[Mapping[str, Any]], None]:
    """Function that removes features of a scan that no case needs, if the store lies inside the output folder."""
    if plan.store is not None:
        return lambda answer: None

    def remove(answer: Mapping[str, Any]) -> None:
        key = answer.get("store_key")
        if key:
            from meddift.features import FeatureStore

            FeatureStore(plan.store_path).remove(str(key))

    return remove


def _counts(results: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    states = [str(line["state"]) for line in results.values()]
    return {state: states.count(state) for state in ("done", "failed", "refused") if state in states}
