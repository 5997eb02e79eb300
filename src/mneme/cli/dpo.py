"""`mneme dpo`: preference training that watches for displacement, filters its pairs, and can hold the chosen answers up."""

from pathlib import Path
from typing import TYPE_CHECKING

from mneme.cli.again import asked_again
from mneme.cli.commands import from_options
from mneme.cli.importing import quick_imports
from mneme.cli.saying import Json, say, say_json
from mneme.cli.stopping import working
from mneme.dpo.options import DpoOptions

if TYPE_CHECKING:
    from mneme.results.dpo import PreferenceRun


@from_options(DpoOptions)
def dpo(
    options: DpoOptions,
    json: Json = False,
) -> None:
    """Train on preference pairs with TRL's DPO, and see whether the chosen answers become less likely.

    The same command after a kill goes on where it stopped.
    """
    with working(options.machine, f"The same command goes on from the last checkpoint in {options.out}."):
        with quick_imports():
            from mneme.dpo.run import run_dpo

        record = run_dpo(options)
    show_preferences(record, Path(options.out), json=json)


def show_preferences(record: "PreferenceRun", out: Path, *, json: bool) -> None:
    """Writes the page of a finished training in `out`; prints it, as JSON or as a table, and where page and model are."""
    from mneme.report.preferences import render_preferences
    from mneme.runs import add_file

    page = add_file(out, "preferences.html", render_preferences(record, asked_again(out, "dpo", DpoOptions)).encode())
    if json:
        say_json(record.to_json())
    else:
        _print(record)
    say(f"Page: {page}", err=json)
    say(f"Model: {out / 'model'}", err=json)


def _print(record: "PreferenceRun") -> None:
    """The watched pairs over time, then the tokens that rose."""
    from mneme.options import counted
    from mneme.report.preferences_view import preferences_headline
    from mneme.results import TooFew
    from mneme.terminal import Listing, Terminal

    console = Terminal()
    console.print(preferences_headline(record), style="bold")
    pairs = counted(record.pairs, "pair")
    console.print(f"{record.trained_pairs} of {pairs} trained on (filter: {record.filter}).", markup=False)
    console.print("Watched pairs: change of log-probability, nats per answer:")
    table = Listing(("step", "chosen", "rejected", "chosen fell", "in the band"))
    for look, band in zip(record.displacement, record.band, strict=True):
        changes = (look.chosen_change, look.rejected_change)
        bounds = [e.told() if isinstance(e, TooFew) else f"{e.low:+.2f}, {e.high:+.2f}" for e in changes]
        cells = [f"{e.plain:+.2f} [{told}]" for e, told in zip(changes, bounds, strict=True)]
        table.add(str(look.step), *cells, f"{look.displaced.plain:.0%}", "yes" if band.inside else "no")
    console.print(table)
    rising = ", ".join(f"{rise.token!r} (+{rise.rise:.3f})" for rise in record.displacement[-1].rising)
    console.print(f"Tokens that rose where the chosen answers stand: {rising or 'none'}.", markup=False)
