"""`mneme screen`: which training rows or preference pairs will do harm, before anything is trained."""

from pathlib import Path
from typing import TYPE_CHECKING

from mneme.cli.again import asked_again
from mneme.cli.commands import from_options
from mneme.cli.importing import quick_imports
from mneme.cli.saying import Json, say, say_json
from mneme.cli.stopping import working
from mneme.screen.options import ScreenOptions

if TYPE_CHECKING:
    from mneme.results import Estimate
    from mneme.results.screen import RowScreening


@from_options(ScreenOptions)
def screen(
    options: ScreenOptions,
    json: Json = False,
) -> None:
    """Rank training rows or preference pairs by the harm to expect of them, keep the rest, and measure what that buys.

    The same command after a kill goes on where it stopped.
    """
    with working(options.machine, f"The same command goes on where it stopped; finished stages are in {options.out}."):
        with quick_imports():
            from mneme.screen.run import run_screen

        screening = run_screen(options)
    show_screening(screening, Path(options.out), json=json)


def show_screening(screening: "RowScreening", out: Path, *, json: bool) -> None:
    """Writes the page of a finished screening in `out`; prints it, as JSON or as a table, and where page and rows are."""
    from mneme.report.screen import render_screening
    from mneme.runs import add_file

    page = add_file(out, "screening.html", render_screening(screening, asked_again(out, "screen", ScreenOptions)).encode())
    if json:
        say_json(screening.to_json())
    else:
        _print(screening)
    say(f"Page: {page}", err=json)
    say(f"Kept: {out / 'kept.jsonl'}", err=json)


def _print(screening: "RowScreening") -> None:
    """The most suspect rows, then what filtering buys."""
    from mneme.options import counted
    from mneme.report.screen_view import screening_headline
    from mneme.terminal import Listing, Terminal

    console = Terminal()
    name = screening.ranked_by
    console.print(screening_headline(screening), style="bold")
    console.print(f"{counted(screening.rows, screening.kind[:-1])}, the most suspect first:")
    table = Listing(("row", name, "question", "answer"), short=("question", "answer"))
    for row in screening.top:
        table.add(str(row.row), f"{row.scores[name]:.4g}", row.question, row.answer)
    console.print(table)
    console.print(f"{screening.kept} of {screening.rows} kept. {name}: {_unit(screening)}.", markup=False)
    value = screening.value
    if value is None:
        console.print(f"What filtering buys was not measured: {screening.no_value}.", markup=False)
        return
    console.print(f"Trial of {counted(value.steps, 'step')} on each; {value.measure}:", markup=False)
    for arm in value.arms:
        console.print(f"  {arm.name:7} {arm.rows:6} {screening.kind}  {_interval(arm.shift)}", markup=False)
    if value.avoided is None:
        console.print("The whole data does not shift it clearly, so there is nothing to avoid.", markup=False)
    elif value.avoided_at_random is not None:
        console.print(
            f"Filtering avoids {_interval(value.avoided)} of it; dropping as many at random "
            f"{_interval(value.avoided_at_random)}.",
            markup=False,
        )


def _unit(screening: "RowScreening") -> str:
    return next(summary.unit for summary in screening.scores if summary.name == screening.ranked_by)


def _interval(estimate: "Estimate") -> str:
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"
