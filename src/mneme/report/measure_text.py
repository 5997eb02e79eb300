"""A measurement in the terminal: the judge first, then every primary rate with its interval and detectable effect."""

from rich.console import Console
from rich.text import Text

from mneme.options import counted
from mneme.plain import plain
from mneme.report import measure_view as view
from mneme.results.measure import Measurement
from mneme.terminal import Listing

WIDE = 130
"""Columns of a terminal from which on a change stands beside the two rates it is made of."""
_STYLES = {
    **{"worse": "bold red", "more": "bold red", "less": "bold red", "better": "bold green"},
    **{"same": "green", "unshown": "dim", "few": "yellow", "": ""},
}


def rates_table(measurement: Measurement, label: str | None, *, wide: bool = True) -> Listing:
    """Areas against the base (with a tuned `label`), or the rates of one model; without `wide` the change alone."""
    one = ["area", "measure", "rate", "95 % interval", "MDE", "questions", "answers"]
    two = ["area", "measure", "base", "tuned", "change", "95 % interval", "MDE", "p (Holm)", ""]
    two = two if wide else [name for name in two if name not in ("base", "tuned")]
    table = Listing(two if label else one, names=2, left=("",))
    for row in view.measurement_rows(measurement, label):
        first = row.first
        if label and row.change:
            unit = row.change.estimate.unit
            base = f"{view.shown(first.estimate)} {view.measured_interval(first.estimate)}"
            tuned = f"{view.shown(row.second.estimate)} {view.measured_interval(row.second.estimate)}" if row.second else "–"
            cells = [row.area, row.measure, *([base, tuned] if wide else []), view.shown(row.change.estimate, signed=True)]
            cells += [
                view.measured_interval(row.change.estimate, signed=True),
                view.detectable(row.change.minimal_detectable, unit),
            ]
            cells += [view.p_value(row.change.p_holm), view.row_said(row)]
        elif label:
            continue
        else:
            estimate = first.estimate
            cells = [row.area, row.measure, view.shown(estimate), view.measured_interval(estimate)]
            cells += [view.detectable(first.minimal_detectable, estimate.unit), str(estimate.n), str(first.answers)]
        table.add(*(Text(plain(cell), style=_STYLES[view.direction(row) or row.said]) for cell in cells))
    return table


def print_measurement(measurement: Measurement, console: Console) -> None:
    """Prints judge, changes (or rates), worst contexts, judge failures and the series."""
    console.print(Text(plain(view.measurement_headline(measurement)), style="bold"))
    judge = measurement.judge
    if judge:
        tested = "; ".join(
            f"{one.criterion}: kappa {one.kappa.value:.2f} [{one.kappa.low:.2f}, {one.kappa.high:.2f}] on "
            f"{counted(one.items, 'answer')}"
            for one in judge.agreement
        )
        console.print(Text(plain(f"Judge {judge.name}, {judge.method}. {tested or judge.untested}"), style="dim"))
        console.print(Text(view.aggregate_words(measurement), style="dim"))
    labels: list[str | None] = [*view.tuned_labels(measurement)] or [None]
    for label in labels:
        console.print()
        if label:
            console.print(Text(plain(f"{label} against {measurement.models[0].label}"), style="bold"))
        console.print(rates_table(measurement, label, wide=console.width >= WIDE))
    if view.tuned_labels(measurement):
        console.print(Text(view.margin_words(measurement), style="dim"))
    _print_worst(measurement, console)
    for failure in measurement.failures:
        where = f"{failure.model}, {failure.area}, {failure.context}"
        words = f"{where}: {failure.unscored} of {counted(failure.answers, 'answer')} without a verdict."
        console.print(Text(plain(words), style="yellow"))
    series = measurement.series
    if series:
        console.print()
        best = f"within {series.within:g} % of the best task score ({series.best}; {series.task})"
        words = f"{series.earliest} is the earliest {best}."
        console.print(Text(plain(words), style="bold"))


def _print_worst(measurement: Measurement, console: Console) -> None:
    if not measurement.worst:
        return
    console.print()
    numbers = ("standard", "under the context", "beyond standard", "MDE", "p (Holm)")
    table = Listing(("model", "area", "measure", "worst context", *numbers), names=4, left=numbers)
    for worst in measurement.worst:
        cells = [worst.model, worst.area, worst.measure, worst.context]
        cells += [f"{view.shown(e)} {view.measured_interval(e)}" for e in (worst.standard, worst.rate)]
        beyond = worst.beyond_standard
        cells.append(f"{view.shown(beyond, signed=True)} {view.measured_interval(beyond, signed=True)}")
        cells += [view.detectable(worst.minimal_detectable, beyond.unit), view.p_value(worst.p_holm)]
        style = "bold red" if view.is_worse(worst) else ""
        table.add(*(Text(plain(cell), style=style) for cell in cells))
    console.print(table)
