"""The page of a measurement: one self-contained HTML file without script, under the same rules of safety as the audit's."""

from pathlib import Path

from mneme.report import measure_figures as figures
from mneme.report import measure_view as view
from mneme.report.page import render_page
from mneme.results.measure import Measurement
from mneme.runs import write_atomic


def render_measurement(measurement: Measurement, again: str = "") -> str:
    """The whole page; `again`: the command that makes it.

    Raises BadRun where it would be larger than 5 MB (names of megabytes).
    """
    limit = figures.limit_of([change for change in measurement.changes if change.primary])
    labels = view.tuned_labels(measurement)
    bars = {
        (label, row.area, row.measure): figures.change_bar(row.change, limit, view.direction(row))
        for label in labels
        for row in view.measurement_rows(measurement, label)
        if row.change
    }
    return render_page(
        "measure.html.j2",
        ["tables.css", "lines.css"],
        record="measurement.json",
        view=view,
        notes=measurement.notes,
        again=again,
        m=measurement,
        labels=labels,
        bars=bars,
        series_chart=figures.series_chart(measurement),
    )


def write_measurement(measurement: Measurement, path: str | Path) -> Path:
    """Writes the page to `path` atomically. Raises BadRun where the folder cannot be written."""
    target = Path(path)
    write_atomic(target, render_measurement(measurement).encode())
    return target
