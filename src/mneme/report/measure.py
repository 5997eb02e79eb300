"""The page of a measurement: one self-contained HTML file without script, under the same rules of safety as the audit's."""

from pathlib import Path

from markupsafe import Markup

from mneme.errors import BadRun
from mneme.report import measure_figures as figures
from mneme.report import measure_view as view
from mneme.report import wording
from mneme.report.audit import LARGEST_PAGE, NO_MORE, csp_hash, package_file, page_template, source_of
from mneme.results.measure import Measurement
from mneme.runs import write_atomic


def render_measurement(measurement: Measurement) -> str:
    """The whole page. Raises BadRun where it would be larger than 5 MB (names of megabytes)."""
    style = package_file("style.css") + package_file("measure.css")
    limit = figures.limit_of([change for change in measurement.changes if change.primary])
    labels = view.tuned_labels(measurement)
    bars = {
        (label, row.area, row.measure): figures.change_bar(row.change, limit, row.said)
        for label in labels
        for row in view.measurement_rows(measurement, label)
        if row.change
    }
    page = page_template("measure.html.j2", v=view, w=wording).render(
        m=measurement,
        labels=labels,
        bars=bars,
        series_chart=figures.series_chart(measurement),
        style=Markup(style),
        csp=f"default-src 'none'; style-src {csp_hash(style)}; {NO_MORE}",
    )
    page = source_of(page)
    if len(page.encode()) >= LARGEST_PAGE:
        raise BadRun(
            f"The page of this measurement exceeds {LARGEST_PAGE:,} bytes. Shorten names and contexts; "
            "measurement.json is complete."
        )
    return page


def write_measurement(measurement: Measurement, path: str | Path) -> Path:
    """Writes the page to `path` atomically. Raises BadRun where the folder cannot be written."""
    target = Path(path)
    write_atomic(target, render_measurement(measurement).encode())
    return target
