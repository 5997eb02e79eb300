"""`mneme repair`: undoes a side effect, keeps what the fine-tune was for, and shows what both cost."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mneme.cli.again import asked_again
from mneme.cli.commands import from_options
from mneme.cli.importing import quick_imports
from mneme.cli.saying import Json, say, say_json
from mneme.cli.stopping import answered, working
from mneme.repair.options import RepairOptions

if TYPE_CHECKING:
    from mneme.results.repair import RepairReport


@from_options(RepairOptions)
def repair(
    options: RepairOptions,
    json: Json = False,
) -> None:
    """Undo a side effect and keep the purpose: the weakest repair that closes a stated share of the gap, and its cost.

    Exit code 1 where no method closes that share; then no model is written. The same command after a kill goes on.
    """
    with working(options.machine, f"The same command goes on where it stopped; finished strengths are in {options.out}."):
        with quick_imports():
            from mneme.repair.run import run_repair

        report = run_repair(options)
        with answered(1 if report.chosen is None else 0):
            show_repair(report, Path(options.out), json=json)
    if report.chosen is None:
        say(f"mneme: no method closes {options.close:g} of the gap; no model was written.", err=True)
        raise typer.Exit(1)


def show_repair(report: "RepairReport", out: Path, *, json: bool) -> None:
    """Writes the page of a finished repair in `out`; prints the report, as JSON or as a table, and where the page is."""

    from mneme.report.repair import print_repair, render_repair
    from mneme.runs import add_file
    from mneme.terminal import Terminal

    page = add_file(out, "repair.html", render_repair(report, asked_again(out, "repair", RepairOptions)).encode())
    if json:
        say_json(report.to_json())
    else:
        print_repair(report, Terminal())
        say()
    say(f"Page: {page}", err=json)
    if report.saved is not None:
        say(f"Repaired {report.saved.kind}: {out / report.saved.folder}", err=json)
