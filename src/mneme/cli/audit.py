"""`mneme audit`: predicts the side effects of a fine-tune, prints them, writes the page."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mneme.audit.options import AuditOptions
from mneme.cli.commands import from_options
from mneme.cli.endings import DONE, NOT_ENOUGH, REFUSED
from mneme.cli.importing import quick_imports
from mneme.cli.saying import Json, say, say_json
from mneme.cli.stopping import answered, working
from mneme.errors import BadOption

if TYPE_CHECKING:
    from mneme.results import Report


def is_first_process() -> bool:
    """True but in processes 1, 2 … that torchrun started beside this one: only the first prints and writes pages."""
    return os.environ.get("RANK", "0") == "0"


def unintended(report: "Report", threshold: float) -> list[str]:
    """'area (P 0.93)' of every effect outside the named purpose whose probability reaches `threshold`; where P is
    uncalibrated, of every area that is affected."""
    found = [e for e in report.effects if not e.intended and e.reaches(threshold)]
    return [
        f"{e.area} (" + ("affected, P uncalibrated" if e.probability is None else f"P {e.probability:.2f}") + ")"
        for e in sorted(found, key=lambda e: -e.standing)
    ]


def unsettled(report: "Report") -> list[str]:
    """Areas outside the named purpose about which the evidence is not enough; where none is left to judge, "every area"."""
    found = [e.area for e in report.effects if not e.intended and e.finding == "not enough evidence"]
    return found or (["every area"] if report.verdict == "inconclusive" else [])


@from_options(AuditOptions)
def audit(
    options: AuditOptions,
    fail_on: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            min=0,
            max=1,
            help="Exit with 1 when an unintended effect reaches P, or is affected where P is uncalibrated; else with 3 when "
            "the evidence on an unintended area is not enough.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what the run would take, before any weight is loaded, and stop.")
    ] = False,
) -> None:
    """Predict which areas a fine-tune reached beyond its purpose, from the two models and ordinary text alone.

    Without models it audits the built-in pair. The same command after a kill goes on where it stopped.
    """
    with working(options.machine, f"The same command goes on where it stopped; finished stages are in {options.out}."):
        with quick_imports():
            from mneme.audit.run import run_audit

        if plan:
            show_plan(options)
            return
        report = run_audit(options)
        reached = unintended(report, fail_on) if fail_on is not None else []
        unsure = unsettled(report) if fail_on is not None else []
        code = REFUSED if reached else NOT_ENOUGH if unsure else DONE
        with answered(code):
            if is_first_process():
                show_audit(report, Path(options.out), json=json)
    if reached:
        say(f"mneme: --fail-on {fail_on:g} was reached by {', '.join(reached)}.", err=True)
    elif unsure:
        say(
            f"mneme: --fail-on {fail_on:g} was not reached, but the evidence is not enough for {', '.join(unsure)}. Give more "
            "text of these, or name the areas that matter with --areas.",
            err=True,
        )
    if code != DONE:
        raise typer.Exit(code)


def show_plan(options: AuditOptions) -> None:
    """Prints what the audit would take. Raises BadOption where the models or the text are not named."""
    from mneme.audit.forecast import forecast_run as plan_run

    if options.base is None or options.tuned is None or options.corpus is None:
        raise BadOption("--plan needs BASE, TUNED and --corpus: the cost depends on their size.")
    found = plan_run(options, processes=int(os.environ.get("WORLD_SIZE", "1")))
    lines = {
        "tokens of text": f"{found.tokens:,}",
        "arithmetic": f"{found.flops / 1e12:,.2f} TFLOP",
        "weights moved": f"{found.moved_bytes / 1e9:,.1f} GB",
        "disk": f"{found.disk_bytes / 1e6:,.0f} MB",
        "peak memory": f"{found.peak_bytes / 1e9:,.2f} GB a process",
        "time": f"about {found.seconds:,.0f} s",
        **{f"  {name}": f"{seconds:,.1f} s" for name, seconds in found.parts.items()},
    }
    for name, value in lines.items():
        say(f"{name:15} {value}")


def show_audit(report: "Report", out: Path, *, json: bool) -> None:
    """Writes the page of a finished run in `out`; prints the report, as JSON or as a table, and where the page is."""

    from mneme.report.audit import render_html
    from mneme.report.audit_text import print_report
    from mneme.report.reading import read_timings
    from mneme.runs import add_file
    from mneme.terminal import Terminal

    page = add_file(out, "report.html", render_html(report, read_timings(out)).encode())
    if json:
        say_json(report.to_json())
    else:
        print_report(report, Terminal())
        say()
    say(f"Page: {page}", err=json)
