"""Inline SVG of a measurement: bars of rates and changes with their intervals, and the series over training."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from mneme.report import measure_view as view
from mneme.report import wording
from mneme.report.figures import BAR_HEIGHT, BAR_MARGIN, BAR_WIDTH, legend
from mneme.results import Estimate, TooFew
from mneme.results.measure import STANDARD, MeasuredChange, Measurement

_MOST_LINES = 6


def change_bar(change: MeasuredChange, limit: float, direction: str) -> Markup:
    """Zero in the middle, the interval as a line, the change as a dot (empty where there are too few questions); `limit` is
    the half width in the change's own unit; `direction`: `measure_view.direction`, which gives the colour."""
    if isinstance(change.estimate, TooFew):
        return Markup("")
    half = BAR_WIDTH / 2 - BAR_MARGIN
    estimate, middle, centre = change.estimate, BAR_HEIGHT / 2, BAR_WIDTH / 2
    x = [centre + half * max(-1.0, min(1.0, v / limit)) for v in (estimate.low, estimate.value, estimate.high)]
    label = f"{view.shown(estimate, signed=True)}, 95 % interval {view.measured_interval(estimate, signed=True)}"
    return Markup(
        '<svg class="bar {}" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '<line class="axis" x1="0" x2="{}" y1="{}" y2="{}"/><line class="zero" x1="{}" x2="{}" y1="2" y2="{}"/>'
        '<line class="range" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/><circle cx="{:.1f}" cy="{}" r="3.5"/></svg>'
    ).format(
        direction,
        BAR_WIDTH,
        BAR_HEIGHT,
        label,
        BAR_WIDTH,
        middle,
        middle,
        centre,
        centre,
        BAR_HEIGHT - 2,
        x[0],
        x[2],
        middle,
        middle,
        x[1],
        middle,
    )


def limit_of(changes: list[MeasuredChange]) -> float:
    """Half width of the bars: the largest bound of any change of a rate."""
    told = [c.estimate for c in changes if isinstance(c.estimate, Estimate) and wording.factor(c.estimate.unit) != 1.0]
    bounds = [max(abs(estimate.low), abs(estimate.high)) for estimate in told]
    return min(max(bounds, default=1.0), 1.0) or 1.0


def series_chart(measurement: Measurement) -> Markup:
    """Task score and every primary rate over training with their intervals; empty without a series."""
    series = measurement.series
    if series is None:
        return Markup("")
    labels = [checkpoint.model for checkpoint in series.checkpoints]
    steps = [checkpoint.step for checkpoint in series.checkpoints]
    places = [float(step) for step in steps if step is not None]
    if len(places) < len(labels) or len(set(places)) < len(places):
        places = [float(i) for i in range(len(labels))]
    lines = [("task score", _whole([checkpoint.task for checkpoint in series.checkpoints]))]
    areas = dict.fromkeys((r.area, r.measure) for r in measurement.rates if r.primary and r.context == STANDARD)
    rates = {(r.model, r.area, r.measure): r.estimate for r in measurement.rates if r.context == STANDARD}
    wanted = [key for key in areas if key[0] == "all"] or list(areas)
    for area, measure in wanted[:_MOST_LINES]:
        found = [rates.get((label, area, measure)) for label in labels]
        lines.append((f"{measure}, {area}", _whole(found)))
    return _lines(places, labels, [line for line in lines if line[1]], labels.index(series.earliest))


def _whole(found: Sequence[Estimate | TooFew | None]) -> list[Estimate]:
    """The estimates of a line; none where one is missing or stands on too few questions."""
    told = [estimate for estimate in found if isinstance(estimate, Estimate)]
    return told if len(told) == len(found) else []


def _lines(places: list[float], labels: list[str], lines: list[tuple[str, list[Estimate]]], chosen: int) -> Markup:
    width, height, left, bottom, top, right = 560.0, 280.0, 46.0, 30.0, 14.0, 14.0
    base, span = height - bottom, max(places) - min(places) or 1.0
    x = [left + 14 + (width - left - right - 28) * (place - min(places)) / span for place in places]

    def y(value: float) -> float:
        return base - (base - top) * max(0.0, min(1.0, value))

    parts = [
        Markup('<svg class="layers series" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">').format(
            width, height, "Task score and rates over training, with 95 % intervals"
        )
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        line = '<line class="axis" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text x="{}" y="{:.1f}" class="end">{} %</text>'
        parts.append(Markup(line).format(left, width - right, y(tick), y(tick), left - 8, y(tick) + 4, round(100 * tick)))
    mark = '<line class="chosen-step" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>'
    parts.append(Markup(mark).format(x[chosen], x[chosen], top, base))
    for number, (name, estimates) in enumerate(lines):
        points = " ".join(f"{a:.1f},{y(e.value):.1f}" for a, e in zip(x, estimates, strict=True))
        parts.append(Markup('<g class="line line-{}"><polyline points="{}"/>').format(number % 6, points))
        for a, e in zip(x, estimates, strict=True):
            ends = '<line x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
            parts.append(Markup(ends).format(a, a, y(e.low), y(e.high)))
            dot = '<circle cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>'
            parts.append(Markup(dot).format(a, y(e.value), f"{name}: {view.shown(e)} {view.measured_interval(e)}"))
        parts.append(Markup("</g>"))
    every = math.ceil(len(places) / 8)
    for i, (place, label) in enumerate(zip(places, labels, strict=True)):
        if i % every == 0 or i == chosen:
            name = (
                f"{place:g}"
                if len(set(places)) == len(places) and places != list(range(len(places)))
                else wording.cut(label, 14)
            )
            style = "middle strong" if i == chosen else "middle"
            parts.append(Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>').format(x[i], base + 18, style, name))
    keys = legend([(f"line line-{number % 6}", name) for number, (name, _) in enumerate(lines)])
    return Markup("").join([*parts, Markup("</svg>"), keys])
