"""Inline SVG of figures over the steps of a training, with their intervals."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from mneme.report import wording
from mneme.report.figures import legend

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 480.0, 220.0, 56.0, 14.0, 14.0, 30.0
"""Little wider than a phone, so that the axis stays readable there."""


class Point(NamedTuple):
    """A figure at a step; `low` and `high` are its interval, the figure itself where it has none."""

    step: int
    value: float
    low: float
    high: float


def lines_chart(lines: Sequence[tuple[str, Sequence[Point]]], said: str, unit: str) -> Markup:
    """One line a name over the steps, with zero in view and a legend below.
    Empty where no line has two points. `said`: what the picture shows, for those who do not see it."""
    shown = [(name, points) for name, points in lines if len(points) > 1]
    if not shown:
        return Markup("")
    steps = [point.step for _, points in shown for point in points]
    bounds = [0.0, *(bound for _, points in shown for point in points for bound in (point.low, point.high))]
    first, last, low, high = min(steps), max(steps), min(bounds), max(bounds)
    span = (high - low) or 1.0
    base, wide = _HEIGHT - _BOTTOM, _WIDTH - _LEFT - _RIGHT

    def at(step: int, value: float) -> tuple[float, float]:
        return _LEFT + wide * (step - first) / max(last - first, 1), base - (base - _TOP) * (value - low) / span

    parts = [
        Markup('<svg class="layers series steps" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">').format(
            _WIDTH, _HEIGHT, said
        )
    ]
    for tick in dict.fromkeys((low, 0.0, high)):
        _, y = at(first, tick)
        parts.append(
            Markup('<line class="axis" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, _WIDTH - _RIGHT, y, y)
        )
        told = wording.number(tick)
        parts.append(Markup('<text x="{}" y="{:.1f}" class="end">{}</text>').format(_LEFT - 8, y + 4, told))
    for step in dict.fromkeys((first, last)):
        anchor = "end" if step == last else "start"
        parts.append(
            Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>').format(at(step, 0.0)[0], base + 18, anchor, step)
        )
    middle = _LEFT + wide / 2
    parts.append(Markup('<text x="{:.1f}" y="{:.1f}" class="middle">step</text>').format(middle, base + 18))
    for number, (name, points) in enumerate(shown):
        line = " ".join("{:.1f},{:.1f}".format(*at(point.step, point.value)) for point in points)
        parts.append(Markup('<g class="line line-{}"><polyline points="{}"/>').format(number % 6, line))
        for point in points if len(points) <= 60 else ():
            x, y = at(point.step, point.value)
            ends = (at(point.step, point.low)[1], at(point.step, point.high)[1])
            if point.high > point.low:
                mark = Markup('<line x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
                parts.append(mark.format(x, x, *ends))
            title = f"{name}, step {point.step}: {wording.number(point.value)} {unit}"
            parts.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>').format(x, y, title))
        parts.append(Markup("</g>"))
    keys = legend([(f"line line-{number % 6}", name) for number, (name, _) in enumerate(shown)])
    return Markup("").join([*parts, Markup("</svg>"), keys if len(shown) > 1 else Markup("")])
