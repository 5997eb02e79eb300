"""The page of several runs side by side: one self-contained file without script, under the rules of `report/page.py`."""

from mneme.report import compare_view as view
from mneme.report.page import render_page
from mneme.results.compare import Lineage


def render_compare(found: Lineage, again: str = "") -> str:
    """The whole page; `again`: the command that makes it. Raises BadRun where it would be larger than 5 MB."""
    return render_page("compare.html.j2", ["tables.css"], record="compare.json", view=view, notes=(), again=again, s=found)
