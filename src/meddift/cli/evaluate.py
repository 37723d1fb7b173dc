"""`meddift evaluate`: compare methods on the same pairs, run ablations, and write a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meddift.cli.evaluate_tables import finish, tables_or_none
from meddift.cli.failures import note_kept, say
from meddift.cli.groups import with_groups
from meddift.cli.help import Command
from meddift.cli.options import AsJson, Engine, Quiet
from meddift.cli.terminal import logged_progress

if TYPE_CHECKING:
    from meddift_lab.running.case import Case

app = typer.Typer(
    help="Compare methods on pairs of scans with known points.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Data = Annotated[
    str,
    typer.Option(
        "--data",
        "-d",
        metavar="SET",
        help="phantom-breathing, phantom-sliding, deformed:SCAN, deformed-sliding:SCAN, deformed-mr:SCAN[,SCAN], "
        "deformed-abdomen:SCAN, pairs:FILE.csv, learn2reg:FOLDER, dirlab-4dct:FOLDER or "
        "dirlab-copd:FOLDER; see `meddift datasets list`.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Output folder; a stopped run is resumed.")]
CaseNames = Annotated[
    list[str] | None,
    typer.Option("--case", metavar="NAME", help="Only this case; may be repeated.", show_default=False),
]
Split = Annotated[
    str | None, typer.Option("--split", help="List of pairs of a Learn2Reg data set.", show_default=False)
]
Orientation = Annotated[
    str, typer.Option("--orientation", help="Directions of the voxel axes of DIR-Lab's raw images.")
]
Threads = Annotated[int, typer.Option("--threads", metavar="N", min=1, help="Number of threads of each process.")]


@app.command(
    "methods",
    cls=Command,
    short_help="List methods and whether they can run here.",
    epilog="meddift evaluate methods",
)
def list_methods(as_json: AsJson = False) -> None:
    """List the methods, the sources of their settings, and whether they can run on this machine."""
    from meddift_lab.methods import METHODS

    rows: list[dict[str, Any]] = [
        {
            "name": method.name,
            "title": method.title,
            "source": method.source,
            "settings": dict(method.settings),
            "versions": method.versions(),
            "unavailable": method.unavailable(),
        }
        for method in METHODS
    ]
    if as_json:
        from meddift.cli.terminal import write_json_to_stdout

        write_json_to_stdout({"methods": rows})
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        source = f" ({row['source']})" if row["source"] else ""
        why = f"; cannot run: {row['unavailable']}" if row["unavailable"] else ""
        say(f"{row['name']:{width}}  {row['title']}{source}{why}")


@app.command(
    "run",
    cls=Command,
    short_help="Run methods on pairs with known points.",
    epilog="meddift evaluate run --data phantom-breathing --out run --method meddift\n"
    "meddift evaluate run --data pairs:pairs.csv --out run",
)
def run(
    data: Data,
    out: Out,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", metavar="NAME", help="Only this method; may be repeated.", show_default=False),
    ] = None,
    case: CaseNames = None,
    split: Split = None,
    orientation: Orientation = "LPS",
    threads: Threads = 1,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Time limit of a method on one case, in s.")
    ] = 3600.0,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Repeat cases that failed before.")] = False,
    redo: Annotated[
        list[str] | None,
        typer.Option("--redo", metavar="NAME", help="Repeat this method; may be repeated.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run methods on the cases of a data set, each in a process of its own, and write tables and a report.

    Results with the same scans, settings and versions are reused, so a run may be stopped at any moment and resumed by
    the same command. A method that fails is a row of the table, and the exit code is then 3.
    """
    from meddift_lab.methods import find_methods
    from meddift_lab.running.commands import remember_command
    from meddift_lab.running.folder import claim_run_folder
    from meddift_lab.running.runner import RunSettings, run_methods
    from meddift_lab.running.tables import collect

    methods = find_methods(method)
    find_methods(redo)
    settings = RunSettings(threads, timeout, retry_failed, frozenset(redo or ()))
    claim_run_folder(out, data)
    note_kept(out)
    cases = _chosen_cases(data, case, split, orientation)
    chosen = [*(("--method", name) for name in method or ()), *_case_words(case, split, orientation)]
    words = ["meddift", "evaluate", "run", "--data", data, "--out", str(out), "--threads", str(threads)]
    remember_command(out, [*words, *(word for pair in chosen for word in pair)])
    with logged_progress(quiet=quiet) as report:
        run_methods(cases, methods, out, settings=settings, on_progress=report)
    tables = collect(out)
    finish(tables, out, as_json=as_json, quiet=quiet)


@app.command(
    "lesions",
    cls=Command,
    short_help="Track simulated lesions and score the result.",
    epilog="meddift evaluate lesions --data longitudinal --out run",
)
@with_groups
def lesions(
    *,
    data: Annotated[
        str,
        typer.Option(
            "--data", "-d", metavar="SET", help="longitudinal (simulated chests), or longitudinal:SCAN (your own CT)."
        ),
    ] = "longitudinal",
    out: Out,
    patients: Annotated[int, typer.Option("--patients", metavar="N", min=1, help="Number of patients.")] = 20,
    scans: Annotated[int, typer.Option("--scans", metavar="N", min=2, help="Number of scans of each patient.")] = 3,
    spacing: Annotated[
        float, typer.Option("--spacing", metavar="MM", min=1.0, help="Voxel size of simulated chests.")
    ] = 2.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    engine: Engine,
) -> None:
    """Track simulated lesions that grow, shrink, appear, disappear, split and merge, and compare with the truth.

    Results of patients with the same settings and code are reused.
    """
    from meddift_lab.longitudinal import run_patients, summary

    with logged_progress(quiet=quiet) as report:
        results = run_patients(
            data, out, engine.matcher(), patients=patients, times=scans, spacing_mm=spacing, on_progress=report
        )
    found = summary(results)
    if as_json:
        from meddift.cli.terminal import write_json_to_stdout

        write_json_to_stdout(found)
    elif not quiet:
        from meddift.cli.terminal import make_table, show

        table = make_table(f"Lesions of {len(results)} patients", [("", False), ("share", True), ("of", True)])
        for key, words, count in _LESION_SCORES:
            share = found[key]
            table.add_row(words, "-" if share is None else f"{100 * share:.1f} %", str(found[count]))
        f1 = found["links_f1"]
        error = found["diameter_error_mm"]
        show(
            table,
            f"F1 of links: {'-' if f1 is None else f'{f1:.3f}'}; longest diameters differ by "
            f"{'-' if error is None else f'{error:.2f}'} mm in the mean",
            *found["wrong"],
            to_stdout=True,
        )


#: Key of each score, its meaning, and the key of its denominator.
_LESION_SCORES = (
    ("correct_partner", "correct partner, of lesions in both scans", "present"),
    ("wrong_disappeared", "called disappeared although it exists", "existing"),
    ("state_right", "right state", "states"),
    ("splits_and_merges_found", "splits and merges found", "joined"),
    ("category_right", "RECIST category as from true links", "categories"),
)


@app.command(
    "ablate",
    cls=Command,
    short_help="Change one setting of the method at a time.",
    epilog="meddift evaluate ablate --data phantom-breathing --out run",
)
def ablate(
    data: Data,
    out: Out,
    base: Annotated[
        str, typer.Option("--base", metavar="default|search", help="Settings of which one at a time is changed.")
    ] = "default",
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            metavar="NAME",
            help="Only this setting (levels, noise, draws, sharing, latent, spacing, whitening, prior, subvoxel); "
            "may be repeated.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="Name of the model.")] = "builtin",
    points: Annotated[
        int | None,
        typer.Option("--points", metavar="N", min=1, help="Use at most N points of each kind.", show_default=False),
    ] = None,
    case: CaseNames = None,
    split: Split = None,
    orientation: Orientation = "LPS",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Change one setting of the method at a time, and measure the error of each variant.

    Each scan is encoded once. Existing results are reused, and the report in the folder is written again.
    """
    from meddift_lab.ablation import collect_ablation, run_ablation
    from meddift_lab.report import write_report
    from meddift_lab.running.commands import remember_command
    from meddift_lab.running.folder import claim_run_folder

    claim_run_folder(out, data)
    note_kept(out)
    cases = _chosen_cases(data, case, split, orientation)
    chosen = [*(("--sweep", name) for name in sweep or ()), *_case_words(case, split, orientation)]
    chosen += [("--points", str(points))] if points is not None else []
    words = ["meddift", "evaluate", "ablate", "--data", data, "--out", str(out), "--base", base, "--model", model]
    remember_command(out, [*words, *(word for pair in chosen for word in pair)])
    with logged_progress(quiet=quiet) as report:
        run_ablation(cases, out, base=base, model=model, sweeps=sweep, points=points, on_progress=report)
    tables = collect_ablation(out)
    page = write_report(tables_or_none(out), out)
    if tables is None or quiet:
        return
    rows = [
        {
            "base": row.base,
            "sweep": row.sweep,
            "variant": row.label,
            "kind": row.kind,
            "cases": row.mean_mm.n,
            "mean_mm": row.mean_mm.mean,
            "median_mm": row.median_mm,
            "within_5mm": row.within_5mm,
        }
        for row in tables.rows
    ]
    claims = [
        {"base": c.base, "claim": c.words, "first": c.first, "second": c.second, "answer": c.verdict}
        for c in tables.claims
    ]
    if as_json:
        from meddift.cli.terminal import write_json_to_stdout

        write_json_to_stdout({"variants": rows, "claims": claims, "report": str(page)})
        return
    from meddift.cli.terminal import make_table, show

    names = ("base", "sweep", "variant", "kind", "cases", "mean", "median", "within 5")
    table = make_table("Ablation: TRE in mm, means over cases", [(name, i > 3) for i, name in enumerate(names)])
    for row in rows:
        texts = [str(row[name]) for name in ("base", "sweep", "variant", "kind", "cases")]
        share = f"{100 * float(str(row['within_5mm'])):.0f} %"
        table.add_row(*texts, f"{row['mean_mm']:.2f}", f"{row['median_mm']:.2f}", share)
    show(table, *(f"{c['base']}: {c['claim']}: {c['answer']}" for c in claims), f"Report: {page}", to_stdout=True)


@app.command(
    "report",
    cls=Command,
    short_help="Write tables and report of a run again.",
    epilog="meddift evaluate report --out run",
)
def report(out: Out, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Write tables and report again from the results of a run."""
    from meddift_lab.running.folder import claim_run_folder
    from meddift_lab.running.tables import collect

    tables = collect(out)
    claim_run_folder(out)
    finish(tables, out, as_json=as_json, quiet=quiet)


def _chosen_cases(data: str, names: list[str] | None, split: str | None, orientation: str) -> list[Case]:
    """The cases of a data set; only those named, if names are given."""
    from meddift.errors import OptionsError
    from meddift_lab.sets import find_cases

    cases = find_cases(data, split=split, orientation=orientation)
    if not names:
        return cases
    known = {case.name for case in cases}
    strange = [name for name in names if name not in known]
    if strange:
        raise OptionsError(f"there is no case {', '.join(strange)}; there are {', '.join(sorted(known))}")
    return [case for case in cases if case.name in names]


def _case_words(names: list[str] | None, split: str | None, orientation: str) -> list[tuple[str, str]]:
    """The options that select cases, as far as they were given, as words of a command."""
    words = [("--case", name) for name in names or ()]
    words += [("--split", split)] if split is not None else []
    return words + ([("--orientation", orientation)] if orientation != "LPS" else [])
