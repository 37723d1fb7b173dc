"""`prepare`: check a plan, its input files and its earlier results, before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import meddift
from meddift.cohort.cases import Case, check_names, with_one_spelling
from meddift.cohort.executor import Setup
from meddift.cohort.folder import check_out
from meddift.cohort.inputs import case_key, content_digest, stamp
from meddift.cohort.loop import Todo, case_folder
from meddift.cohort.manifest import latest_results
from meddift.cohort.needs import Crew, choose_crew
from meddift.cohort.order import by_shared_scans, part
from meddift.cohort.plan import Plan
from meddift.cohort.worker import Worker
from meddift.errors import MissingFileError


@dataclass(frozen=True)
class Prepared:
    """A plan after all checks; nothing has been computed or written.

    Attributes:
        plan: The plan.
        total: Number of all cases, over all shards.
        mine: Cases of this shard, in order.
        todo: Cases of this shard that are to be done.
        refused: Cases of this shard that cannot be done.
        found: Cases of this shard with a result that no manifest lists, as after a kill.
        settings: All settings on which the results depend, ready for JSON.
        crew: Number of workers and threads, with memory and time.
        setup: How workers are created.
    """

    plan: Plan
    total: int
    mine: Sequence[Case]
    todo: Sequence[Todo]
    refused: Sequence[Todo]
    found: Sequence[Todo]
    settings: Mapping[str, Any]
    crew: Crew
    setup: Setup


def prepare(plan: Plan) -> Prepared:
    """Read the table, check all input files and earlier results, and estimate memory and time.

    Nothing is written.

    Args:
        plan: The plan.

    Raises:
        MissingFileError: if the table does not exist, or no case has all of its files.
        OptionsError: if the table is malformed, or the output folder holds results of another plan.
        MemoryLimitError: if the run does not fit into memory.
        OutputError: if the output folder cannot be written to.
    """
    source = plan.source_path
    cases = with_one_spelling(_cases(plan))
    check_names(cases, source)
    setup = _setup(plan)
    engine = Worker(setup.factory, setup.settings).engine
    setup = replace(setup, versions=dict(engine.versions()))
    settings = {
        "meddift": meddift.__version__, **setup.versions, "do": list(plan.do), "matcher": dict(plan.matcher),
        "files": vars(plan.files), "points_space": plan.points_space, "engine": plan.engine, "source": str(source),
    }  # fmt: skip
    check_out(plan.out_path, settings, source=source)
    mine = part(by_shared_scans(cases), *plan.shard)
    known = latest_results(plan.out_path)
    todo: list[Todo] = []
    refused: list[Todo] = []
    found: list[Todo] = []
    for case in mine:
        checked = _checked(case)
        item = Todo(checked, case_key(case, settings), stamp(case.inputs))
        state = _state(plan, item, known.get(case.name))
        if state == "found":
            found.append(item)
        elif state == "todo":
            (refused if checked.refusal else todo).append(item)
    if len(refused) == len(cases):
        raise MissingFileError(f"{source}: no case can be done; the first: {refused[0].case.refusal}")
    scans = {scan for item in todo for scan in item.case.scans}
    needs = engine.needs([item.case for item in todo])
    crew = choose_crew(plan, needs, cases=len(todo), scans=len(scans))
    setup = replace(
        setup, threads=crew.threads, devices=_devices(crew), settings={**setup.settings, "threads": crew.threads}
    )
    return Prepared(plan, len(cases), mine, todo, refused, found, settings, crew, setup)


def _cases(plan: Plan) -> list[Case]:
    if plan.source_path.is_dir():
        from meddift.cohort.bids import read_bids

        return read_bids(plan.source_path, plan.do, suffix=plan.suffix)
    from meddift.cohort.tables import read_cases

    return read_cases(plan.source_path, plan.do)


def _setup(plan: Plan) -> Setup:
    settings = {
        "matcher": dict(plan.matcher), "files": vars(plan.files), "points_space": plan.points_space,
        "store": str(plan.store_path), "out": str(plan.out_path), "threads": plan.threads,
    }  # fmt: skip
    return Setup(plan.engine, settings, threads=1)


def _devices(crew: Crew) -> tuple[str, ...]:
    """The CUDA device of each worker."""
    devices = crew.needs.devices
    return tuple(devices[number % len(devices)] for number in range(crew.workers)) if devices else ()


def _checked(case: Case) -> Case:
    """The case, with a refusal if one of its files does not exist."""
    if case.refusal:
        return case
    lacking = [path for path in case.inputs if not Path(path).exists()]
    return replace(case, refusal=f"there is no {', '.join(lacking)}") if lacking else case


def _state(plan: Plan, item: Todo, line: Mapping[str, Any] | None) -> str:
    """State of a case: "over", "todo", or "found" if its result exists but no manifest lists it."""
    if line is None or line.get("key") != item.key:
        kept = read_result(plan.out_path, item.case.name)
        same = kept is not None and kept.get("key") == item.key and kept.get("state") == "done"
        return "found" if same and _same_inputs(item, kept or {}) else "todo"
    if line["state"] != "done":
        return "todo" if plan.retry_failed or line.get("stamp") != item.stamp else "over"
    if line.get("stamp") == item.stamp:
        return "over" if (case_folder(plan.out_path, item.case.name) / "result.json").is_file() else "todo"
    return "over" if _same_inputs(item, read_result(plan.out_path, item.case.name) or {}) else "todo"


def _same_inputs(item: Todo, result: Mapping[str, Any]) -> bool:
    """Whether input files are unchanged, by size and time, or else by content, since copies have other times."""
    if result.get("stamp") == item.stamp:
        return True
    inputs = result.get("inputs")
    try:
        return isinstance(inputs, dict) and all(inputs.get(p) == content_digest(p) for p in item.case.inputs)
    except OSError:
        return False


def read_result(out: Path, name: str) -> dict[str, Any] | None:
    """Content of `result.json` of a case; None if it does not exist or cannot be read."""
    try:
        content = json.loads((case_folder(out, name) / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
