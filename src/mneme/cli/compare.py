"""`mneme compare`: puts finished audits side by side, prints areas by runs, writes the page."""

from pathlib import Path
from typing import TYPE_CHECKING

from mneme.cli.again import asked_again
from mneme.cli.commands import from_options
from mneme.cli.importing import quick_imports
from mneme.cli.saying import Json, say, say_json
from mneme.cli.stopping import stopped_with
from mneme.compare.options import CompareOptions

if TYPE_CHECKING:
    from mneme.results.compare import Lineage


@from_options(CompareOptions)
def compare(
    options: CompareOptions,
    json: Json = False,
) -> None:
    """Compare finished audits: several fine-tunes of one base, checkpoints of a run, or the steps of a chain.

    Areas by runs with intervals, which step did it, the best at its task for the least side effects, pairwise tests.
    """
    with stopped_with("Nothing was changed."):
        with quick_imports():
            from mneme.compare.run import run_compare

        show_compare(run_compare(options), Path(options.out), json=json)


def show_compare(found: "Lineage", out: Path, *, json: bool) -> None:
    """Writes the page of a finished comparison in `out`; prints it, as JSON or as a table, and where the page is."""
    from mneme.report.compare import render_compare
    from mneme.runs import add_file

    page = add_file(out, "compare.html", render_compare(found, asked_again(out, "compare", CompareOptions)).encode())
    if json:
        say_json(found.to_json())
    else:
        _print(found)
    say(f"Page: {page}", err=json)


def _print(found: "Lineage") -> None:
    from mneme.report import compare_view as view
    from mneme.terminal import Listing, Terminal

    console = Terminal()
    console.print(view.compare_headline(found), style="bold")
    console.print(f"{found.best}: {found.best_why}")
    table = Listing(("area", *(run.name for run in found.runs), "step"), left=("step",))
    for row in found.areas:
        table.add(row.area, *(f"{view.cell_size(cell)} {view.cell_bounds(cell)}".strip() for cell in row.cells), row.did_it)
    console.print(table)
    apart = view.told_apart(found)
    if found.differences:
        console.print(
            f"{len(apart)} of {len(found.differences)} differences between two runs are told from none.", style="dim"
        )
    for note in found.notes:
        console.print(note, style="dim")
