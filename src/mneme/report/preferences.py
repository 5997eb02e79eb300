"""The page of a preference training: one self-contained file without script, under the rules of `report/page.py`."""

from mneme.report import preferences_view as view
from mneme.report.lines import Point, lines_chart
from mneme.report.page import render_page
from mneme.results.dpo import PreferenceRun


def render_preferences(run: PreferenceRun, again: str = "") -> str:
    """The whole page; `again`: the command that makes it. Raises BadRun where it would be larger than 5 MB."""
    looks = run.displacement
    moved = lines_chart(
        [
            ("chosen", view.points_of([(look.step, look.chosen_change) for look in looks])),
            ("rejected", view.points_of([(look.step, look.rejected_change) for look in looks])),
        ],
        "Change of the log-probability of chosen and rejected answers over training, with 95 % intervals",
        "nats per answer",
    )
    losses = [Point(step, loss, loss, loss) for step, loss in enumerate(run.losses, start=1)]
    return render_page(
        "preferences.html.j2",
        ["tables.css", "lines.css"],
        record="preferences.json",
        view=view,
        notes=run.notes,
        again=again,
        p=run,
        looks=list(zip(looks, run.band, strict=True)),
        moved=moved,
        losses=lines_chart([("loss", losses)], "Loss over training", ""),
    )
