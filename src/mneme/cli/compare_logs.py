"""`mneme compare-logs`: pairs two logs of an evaluation, prints what changed, writes the page."""

from pathlib import Path
from typing import TYPE_CHECKING

from mneme.cli.again import asked_again
from mneme.cli.commands import from_options
from mneme.cli.importing import quick_imports
from mneme.cli.saying import Json, say, say_json
from mneme.cli.stopping import stopped_with
from mneme.compare_logs.options import CompareLogsOptions

if TYPE_CHECKING:
    from mneme.results.compare_logs import LogComparison


@from_options(CompareLogsOptions)
def compare_logs(
    options: CompareLogsOptions,
    json: Json = False,
) -> None:
    """Compare two logs of the same evaluation item by item: lm-eval, Inspect, or JSON lines. Nothing is run again.

    Paired intervals and McNemar, flipped items both ways with their text, equivalence and power, judges side by side.
    """
    with stopped_with("Nothing was changed."):
        with quick_imports():
            from mneme.compare_logs.run import run_compare_logs

        show_logs(run_compare_logs(options), Path(options.out), json=json)


def show_logs(found: "LogComparison", out: Path, *, json: bool) -> None:
    """Writes the page of a finished comparison in `out`; prints it, as JSON or as a table, and where the page is."""
    from mneme.report.compare_logs import render_logs
    from mneme.runs import add_file

    page = add_file(out, "logs.html", render_logs(found, asked_again(out, "compare-logs", CompareLogsOptions)).encode())
    if json:
        say_json(found.to_json())
    else:
        _print(found)
    say(f"Page: {page}", err=json)
    say(f"Flips: {out / 'flips.jsonl'}", err=json)


def _print(found: "LogComparison") -> None:
    from mneme.report import compare_logs_view as view
    from mneme.terminal import Listing, Terminal

    console = Terminal()
    console.print(view.logs_headline(found), style="bold")
    table = Listing(("task", "measure", "change", "95 % interval", "flips", "p (Holm)", ""), names=2, left=("",))
    for change in found.changes:
        p_value = view.p_told(change.p_holm if change.primary else change.p_value)
        cells = (
            view.log_moved(change.change),
            view.log_bounds(change.change),
            view.flipped(change),
            p_value,
            view.said(change),
        )
        table.add(change.task, change.measure, *cells)
    console.print(table)
    for judges in found.judges:
        kappa = "" if judges.kappa is None else f", kappa {judges.kappa:.2f}"
        console.print(f"{judges.task}: {judges.first} and {judges.second} agree on {judges.same:.0%}{kappa}.", style="dim")
    for note in found.notes:
        console.print(note, style="dim")
