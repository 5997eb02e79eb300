"""Inline SVG: the bar of an effect with its interval, and the chart of the layers; colours come from the page's style."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from mneme.report import wording
from mneme.results import Effect, Layer

BAR_WIDTH, BAR_HEIGHT, BAR_MARGIN = 200, 22, 6


def axis_limits(effects: list[Effect]) -> dict[str, float]:
    """The largest |bound| by unit as it is shown: effects of one unit share one scale, so that bars can be compared."""
    limits: dict[str, float] = {}
    for effect in effects:
        estimate = effect.magnitude
        unit, far = wording.unit_name(estimate.unit), max(abs(estimate.low), abs(estimate.high), abs(estimate.value))
        limits[unit] = max(limits.get(unit, 0.0), far * wording.factor(estimate.unit))
    return {unit: limit or 1.0 for unit, limit in limits.items()}


def interval_bar(effect: Effect, limit: float) -> Markup:
    """Zero in the middle, the interval as a line, the value as a dot; `limit` is the half width, in the shown unit."""
    estimate = effect.magnitude
    half = BAR_WIDTH / 2 - BAR_MARGIN
    scale = half * wording.factor(estimate.unit) / limit
    x = {key: BAR_WIDTH / 2 + scale * getattr(estimate, key) for key in ("low", "value", "high")}
    middle, centre = BAR_HEIGHT / 2, BAR_WIDTH / 2
    label = f"{wording.magnitude(estimate)}, 95 % interval {wording.interval(estimate)}"
    return Markup(
        '<svg class="bar {}" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '<line class="axis" x1="0" x2="{}" y1="{}" y2="{}"/><line class="zero" x1="{}" x2="{}" y1="2" y2="{}"/>'
        '<rect class="extent" x="{:.1f}" y="{}" width="{:.1f}" height="8" rx="1"/>'
        '<line class="range" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/><circle cx="{:.1f}" cy="{}" r="3.5"/></svg>'
    ).format(
        effect.direction,
        BAR_WIDTH,
        BAR_HEIGHT,
        label,
        BAR_WIDTH,
        middle,
        middle,
        centre,
        centre,
        BAR_HEIGHT - 2,
        min(centre, x["value"]),
        middle - 4,
        abs(x["value"] - centre),
        x["low"],
        x["high"],
        middle,
        middle,
        x["value"],
        middle,
    )


def legend(names: Sequence[tuple[str, str]]) -> Markup:
    """What the lines of a chart are, as a list below it: (CSS class of the line, its name)."""
    mark = Markup(
        '<li><svg class="swatch" viewBox="0 0 22 10" aria-hidden="true"><g class="{}"><line x1="0" x2="22" y1="5" y2="5"/>'
        '<circle cx="11" cy="5" r="3.5"/></g></svg>{}</li>'
    )
    return Markup('<ul class="keys">{}</ul>').format(Markup("").join(mark.format(*name) for name in names))


def layers_chart(layers: list[Layer]) -> Markup:
    """|q|/|h| of every layer as a column, chosen layers marked and labelled with the share left unexplained."""
    width, height, left, bottom, top = 720.0, 220.0, 46.0, 40.0, 22.0
    peak = max((layer.relative_change for layer in layers), default=0.0) or 1.0
    step = (width - left) / max(len(layers), 1)
    parts = [
        Markup('<svg class="layers" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">').format(
            width, height, "Size of the change at each layer, relative to the residual stream of the base model"
        )
    ]
    base = height - bottom
    for tick in (0.0, peak / 2, peak):
        y = base - (base - top) * tick / peak
        parts.append(Markup('<line class="axis" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(left, width, y, y))
        parts.append(Markup('<text x="{}" y="{:.1f}" class="end">{}</text>').format(left - 8, y + 4, wording.percent(tick)))
    every = math.ceil(len(layers) / 24)
    for index, layer in enumerate(layers):
        x, tall = left + step * index, (base - top) * layer.relative_change / peak
        name = "chosen" if layer.chosen else "other"
        title = f"layer {layer.layer}: change {wording.percent(layer.relative_change)} of the residual stream"
        bar = min(step * 0.72, 56.0)
        column = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>')
        parts.append(column.format(name, x + (step - bar) / 2, base - tall, bar, max(tall, 0.5), title))
        if layer.chosen or index % every == 0:
            mark = "middle strong" if layer.chosen else "middle"
            parts.append(
                Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>').format(x + step / 2, base + 18, mark, layer.layer)
            )
    parts.append(
        Markup('<text x="{:.1f}" y="{:.1f}" class="middle">{}</text></svg>').format(
            left + (width - left) / 2, height - 4, "layer"
        )
    )
    return Markup("").join(parts)
