"""`mneme audit`: predicts the side effects of a fine-tune, prints them, writes the page."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mneme.audit.options import AuditOptions
from mneme.cli.commands import from_options
from mneme.cli.endings import DONE
from mneme.cli.gate import show_gate, worst_code
from mneme.cli.importing import quick_imports
from mneme.cli.saying import Json, say, say_json
from mneme.cli.stopping import answered, working
from mneme.errors import BadOption
from mneme.gate.options import GateOptions

if TYPE_CHECKING:
    from mneme.results import Report
    from mneme.results.gate import GateResult


def is_first_process() -> bool:
    """True but in processes 1, 2 … that torchrun started beside this one: only the first prints and writes pages."""
    return os.environ.get("RANK", "0") == "0"


def threshold_told(result: "GateResult", fail_on: float) -> str:
    """What `--fail-on` says of a report, most probable first; empty where it holds."""
    reached = sorted(result.of("fail"), key=lambda check: check.reason, reverse=True)
    if reached:
        return f"--fail-on {fail_on:g} was reached by {', '.join(f'{one.area} ({one.reason})' for one in reached)}."
    unsure = ", ".join(check.area for check in result.of("not enough evidence"))
    if unsure:
        return (
            f"--fail-on {fail_on:g} was not reached, but the evidence is not enough for {unsure}. Give more text of these, or "
            "name the areas that matter with --areas."
        )
    return ""


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
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Hold the audit against a policy, as `mneme gate` does: its files are written and its exit code holds.",
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
        from mneme.gate.policy import read_policy, threshold_policy
        from mneme.gate.run import gate_of, held_against, write_gate

        if plan:
            show_plan(options)
            return
        if policy is not None:
            read_policy(policy)  # its mistakes are said before hours of work
        report = run_audit(options)
        gated = None if policy is None else GateOptions(options.out, policy=policy)
        by_file = None if gated is None else held_against(report, report.to_json().encode(), gated)
        by_threshold = None if fail_on is None else gate_of(report, threshold_policy(fail_on))
        code = worst_code([one for one in (by_file, by_threshold) if one is not None])
        with answered(code):
            if is_first_process():
                show_audit(report, Path(options.out), json=json)
                if by_file is not None:
                    write_gate(by_file, Path(options.out))
                    show_gate(by_file, Path(options.out), err=json)
    if by_threshold is not None and fail_on is not None and (told := threshold_told(by_threshold, fail_on)):
        say(f"mneme: {told}", err=True)
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
