"""The page of an unlearning run: one self-contained file without script, under the rules of `report/page.py`."""

from mneme.report import unlearn_view as view
from mneme.report.lines import Point, lines_chart
from mneme.report.page import render_page
from mneme.results.unlearn import Unlearning


def render_unlearning(run: Unlearning, again: str = "") -> str:
    """The whole page; `again`: the command that makes it. Raises BadRun where it would be larger than 5 MB."""
    drawn = [
        (name, [Point(one.step, loss, loss, loss) for one in run.losses if (loss := getattr(one, name)) is not None])
        for name in ("forget", "retain")
    ]
    return render_page(
        "unlearn.html.j2",
        ["tables.css", "lines.css"],
        record="unlearn.json",
        view=view,
        notes=run.notes,
        again=again,
        u=run,
        losses=lines_chart(drawn, "Losses over the steps, before each was taken", ""),
    )
