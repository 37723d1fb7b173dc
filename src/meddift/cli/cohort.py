"""`meddift cohort`: process many pairs or patients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from meddift.cli.failures import DONE_IN_PART, complain, note_kept, say
from meddift.cli.groups import with_groups
from meddift.cli.help import Command, advanced
from meddift.cli.options import AsJson, DryRun, Engine, PointsSpace, Quiet
from meddift.errors import OptionsError

if TYPE_CHECKING:
    from meddift.cohort import Outcome
    from meddift.cohort.preparing import Prepared


class _RunUnlessNamed(TyperGroup):
    """A command group in which `meddift cohort TABLE` means `meddift cohort run TABLE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the command `run` if no command is named."""
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunUnlessNamed,
    help="Match, register or track many cases, on one machine or several. Each scan is encoded once, and a stopped "
    "run can be resumed.",
    epilog="`meddift cohort TABLE --out DIR` is short for `meddift cohort run TABLE --out DIR`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

EXAMPLES = """
meddift cohort pairs.csv --out results --do match,register
meddift cohort bids/ --out bids/derivatives/meddift --do register,track
meddift cohort pairs.csv --out results --shard 3/10
meddift cohort report results
"""


@dataclass(frozen=True)
class Written:
    """Options for the files written for each pair."""

    inverse: Annotated[bool, typer.Option("--inverse", help="Also write inverse transforms.")] = False
    warped: Annotated[
        bool, typer.Option("--warped", help="Also write moving scans resampled onto the fixed grid.")
    ] = False
    jacobian: Annotated[bool, advanced("--jacobian", help="Also write maps of the Jacobian determinant.")] = False
    pictures: Annotated[
        bool,
        advanced(
            "--pictures/--no-pictures", help="Draw a picture of each pair for the report; takes seconds per pair."
        ),
    ] = True


@app.command("run", cls=Command, epilog=EXAMPLES, short_help="Do all cases of a table or of a BIDS folder.")
@with_groups
def run(
    *,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE|BIDS_DIR",
            help="A table of pairs (case,fixed,moving[,points,truth,fixed_mask,moving_mask,labels,prior]) or of "
            "patients (subject,scan,date[,timepoint,lesions,points]), with paths relative to the table; or a BIDS "
            "folder.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Output folder, a BIDS derivative; a stopped run is resumed."),
    ],
    do: Annotated[
        str, typer.Option("--do", metavar="STEP,...", help="Steps to do: any of match, register, track.")
    ] = "register",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Number of cases processed at a time; default: as many as processors and memory allow.",
        ),
    ] = None,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Do part I of N; `cohort report` combines the parts.")
    ] = "1/1",
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="local|ADDRESS",
            help="Run on Ray, on this machine (local) or on a cluster; needs meddift[cluster].",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Repeat cases that failed or were refused before.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    written: Written,
    points_space: PointsSpace = None,
    suffix: Annotated[
        str | None, advanced("--suffix", metavar="NAME", help="BIDS suffix of the scans, such as ct or T1w.")
    ] = None,
    store_folder: Annotated[
        Path | None,
        advanced(
            "--store-folder",
            metavar="DIR",
            help="Folder in which features are kept; default: DIR/work, where they are removed after use.",
        ),
    ] = None,
    engine: Engine,
) -> None:
    """Match, register or track all cases of a table or of a BIDS folder.

    Each scan is encoded once, even if it occurs in several pairs. A run may be killed at any moment; the same command
    resumes it. A case that fails is a row of the table with the reason, and the exit code is then 3. After Ctrl-C,
    running cases are finished; a second Ctrl-C stops at once.
    """
    from meddift.cli.terminal import logged_progress
    from meddift.cohort import Files, Plan
    from meddift.cohort import run as run_plan
    from meddift.cohort.preparing import prepare

    if not engine.store:
        raise OptionsError("a cohort keeps features while they are needed, so that each scan is encoded once; leave "
                           "out --no-store")  # fmt: skip
    engine.matcher()  # reports invalid options and priors before any case is started
    plan = Plan(
        source,
        out,
        do=tuple(part.strip() for part in do.lower().split(",") if part.strip()),
        matcher=_plain(engine.keywords()),
        files=Files(written.inverse, written.warped, written.jacobian, written.pictures),
        points_space=points_space,
        suffix=suffix,
        workers=workers,
        threads=engine.threads,
        shard=_shard(shard),
        ray=ray,
        retry_failed=retry_failed,
        store=store_folder,
    )
    ready = prepare(plan)
    if dry_run or not quiet:
        _show_plan(ready, as_json=as_json and dry_run, to_stdout=dry_run)
    if dry_run:
        return
    note_kept(out)
    with logged_progress(quiet=quiet) as report_progress:
        outcome = run_plan(plan, on_progress=report_progress, prepared=ready)
    _finish(outcome, as_json=as_json, quiet=quiet)


@app.command(
    "report",
    cls=Command,
    short_help="Write table and report from all shards.",
    epilog="meddift cohort report results",
)
def report(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of the run.", show_default=False)],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the table and the report from the results of all shards."""
    from meddift.cohort import report as write_report

    _finish(write_report(out), as_json=as_json, quiet=quiet)


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise OptionsError(f"--shard is I/N, such as 3/10; got {text!r}")
    return int(number), int(count)


def _plain(keywords: dict[str, Any]) -> dict[str, Any]:
    """Keywords of the matcher, ready for JSON; files as absolute paths, since workers may run in another folder."""
    named = {"model": Path(keywords["model"]).absolute()} if Path(keywords["model"]).is_file() else {}
    told = {**keywords, **named}
    return {
        name: str(value.absolute()) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in told.items()
    }


def _show_plan(ready: Prepared, *, as_json: bool, to_stdout: bool) -> None:
    """Print what will be done, and the memory and time it needs."""
    over = len(ready.mine) - len(ready.todo) - len(ready.refused)
    if as_json:
        from meddift.cli.terminal import write_json_to_stdout

        refused = [{"case": item.case.name, "reason": item.case.refusal} for item in ready.refused]
        write_json_to_stdout({**ready.crew.as_dict(), "over": over, "refused": refused})
        return
    for sentence in ready.crew.sentences():
        say(sentence, err=not to_stdout)
    if over:
        say(f"{over} cases are over already", err=not to_stdout)
    for item in ready.refused[:10]:
        say(f"{item.case.name} cannot be done: {item.case.refusal}", err=not to_stdout)
    if len(ready.refused) > 10:
        say(f"... and {len(ready.refused) - 10} more", err=not to_stdout)


def _finish(outcome: Outcome, *, as_json: bool, quiet: bool) -> None:
    """Print how the run ended, and exit with code 3 if a case failed."""
    if as_json:
        from meddift.cli.terminal import write_json_to_stdout

        write_json_to_stdout(
            {"total": outcome.total, "left": outcome.left, **outcome.counts, "stopped": outcome.stopped,
             "table": None if outcome.table is None else str(outcome.table)}
        )  # fmt: skip
    elif not quiet:
        counts = ", ".join(f"{number} {state}" for state, number in outcome.counts.items()) or "none done"
        left = f", {outcome.left} left" if outcome.left else ""
        say(f"{outcome.total} cases: {counts}{left}")
        if outcome.table is not None:
            say(f"Table: {outcome.table}, report: {outcome.out / 'report.html'}")
        else:
            say(f"When all shards are done: meddift cohort report {outcome.out}")
    if outcome.stopped:
        complain("stopped; what was finished is kept, and the same command goes on from there")
    if outcome.stopped or outcome.counts.keys() - {"done"} or (outcome.table is not None and outcome.left):
        raise typer.Exit(DONE_IN_PART)
