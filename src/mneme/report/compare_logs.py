"""The page of a comparison of logs: one self-contained file without script, under the rules of `report/page.py`."""

from mneme.report import compare_logs_view as view
from mneme.report.page import render_page
from mneme.results.compare_logs import LogComparison


def render_logs(found: LogComparison, again: str = "") -> str:
    """The whole page; `again`: the command that makes it. Raises BadRun where it would be larger than 5 MB."""
    return render_page("compare_logs.html.j2", ["tables.css"], record="logs.json", view=view, notes=(), again=again, s=found)
