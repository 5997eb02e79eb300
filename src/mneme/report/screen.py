"""The page of a screening: one self-contained file without script, under the rules of `report/page.py`."""

from mneme.report import screen_view as view
from mneme.report.page import render_page
from mneme.results.screen import RowScreening


def render_screening(screening: RowScreening, again: str = "") -> str:
    """The whole page; `again`: the command that makes it. Raises BadRun where it would be larger than 5 MB."""
    unit = next(score.unit for score in screening.scores if score.name == screening.ranked_by)
    return render_page(
        "screen.html.j2",
        ["tables.css"],
        record="screening.json",
        view=view,
        notes=screening.notes,
        again=again,
        s=screening,
        unit=unit,
    )
