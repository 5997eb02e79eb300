"""The page of a repair (without script, under the rules of `report/page.py`) and its table in the terminal."""

from pathlib import Path

from markupsafe import Markup
from rich.console import Console
from rich.text import Text

from mneme.plain import plain
from mneme.report import repair_view as view
from mneme.report import wording
from mneme.report.figures import legend
from mneme.report.page import render_page
from mneme.results import Estimate
from mneme.results.repair import RepairMethod, RepairReport
from mneme.runs import write_atomic
from mneme.terminal import Listing

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 580.0, 420.0, 52.0, 44.0, 14.0, 20.0


def frontier(report: RepairReport) -> Markup:
    """Undone against gain lost, a curve for every method with the intervals of its points; both axes 0 to 100 %."""
    x0, y0, wide, tall = _LEFT, _HEIGHT - _BOTTOM, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM - _TOP

    def at(lost: float, closed: float) -> tuple[float, float]:
        return x0 + wide * min(max(lost, 0.0), 1.0), y0 - tall * min(max(closed, 0.0), 1.0)

    parts = [
        Markup('<svg class="frontier" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">').format(
            _WIDTH, _HEIGHT, "Share of the side effect undone against share of the gain lost, for every method and strength"
        )
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        (x, _), (_, y) = at(tick, 0.0), at(0.0, tick)
        parts.append(_line("axis", x0, y, x0 + wide, y) + _line("axis", x, y0, x, y0 - tall))
        parts.append(_text(x, y0 + 18, f"{tick:.0%}", "middle") + _text(x0 - 8, y + 4, f"{tick:.0%}", "end"))
    parts.append(_line("even", *at(0.0, 0.0), *at(1.0, 1.0)) + _line("goal", *at(0.0, report.goal), *at(1.0, report.goal)))
    parts.append(_text(x0 + wide / 2, _HEIGHT - 6, "gain of the fine-tune that is lost", "middle"))
    for number, method in enumerate(report.methods):
        parts.append(_curve(number, method, at))
    keys = legend([(_class(number, method), method.method) for number, method in enumerate(report.methods)])
    return Markup("").join([*parts, Markup("</svg>"), keys])


def _class(number: int, method: RepairMethod) -> str:
    return f"line line-{number % 6}{' second' if number >= 6 else ''}{' control' if method.control else ''}"


def _curve(number: int, method: RepairMethod, at: object) -> Markup:
    if not callable(at):
        raise TypeError("at turns shares into places")
    places = [(at(p.lost.plain, p.closed.plain), p) for p in method.points]
    line = " ".join(f"{x:.1f},{y:.1f}" for (x, y), _ in [(at(0.0, 0.0), None), *places])
    marks = [Markup('<polyline points="{}"/>').format(line)]
    for (x, y), p in places:
        if isinstance(p.lost, Estimate) and isinstance(p.closed, Estimate):
            low, high = at(p.lost.low, p.closed.low), at(p.lost.high, p.closed.high)
            marks.append(_line("", x, low[1], x, high[1]) + _line("", low[0], y, high[0], y))
        title = (
            f"{method.method} at {wording.number(p.strength)}: undone {wording.share(p.closed)}, lost {wording.share(p.lost)}"
        )
        marks.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>').format(x, y, title))
    return Markup('<g class="{}">{}</g>').format(_class(number, method), Markup("").join(marks))


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(name, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def render_repair(report: RepairReport, again: str = "") -> str:
    """The whole page; `again`: the command that makes it.

    Raises BadRun where it would be larger than 5 MB (texts of megabytes).
    """
    return render_page(
        "repair.html.j2",
        ["tables.css", "lines.css", "repair.css"],
        record="repair.json",
        view=view,
        notes=report.notes,
        again=again,
        r=report,
        best=view.chosen(report),
        methods=view.ranked_methods(report),
        chart=frontier(report),
    )


def write_repair_html(report: RepairReport, path: str | Path) -> Path:
    """Writes the page to `path` atomically. Raises BadRun where the folder cannot be written."""
    target = Path(path)
    write_atomic(target, render_repair(report).encode())
    return target


def print_repair(report: RepairReport, console: Console) -> None:
    """The headline, every method at its chosen strength, what was not tried."""
    console.print(Text(plain(view.repair_headline(report)), style="bold green" if report.chosen else "bold yellow"))
    console.print(Text(plain(view.reason(report))))
    table = Listing(("method", "strength", "undone", "gain lost", "selectivity", "coherent", "other text"))
    for method in view.ranked_methods(report):
        style = "bold" if method.method == report.chosen else "dim" if method.control else ""
        table.add(*(Text(plain(cell), style=style) for cell in _cells(method, report.goal)))
    console.print(table)
    for absent in report.absent:
        console.print(Text(plain(f"not tried: {absent.method}: {absent.reason}"), style="dim"))


def _cells(method: RepairMethod, goal: float) -> list[str]:
    point = method.chosen
    if point is None:
        return [
            method.method,
            "–",
            f"{wording.percent(view.most(method))} at most, not {wording.percent(goal)}",
            "",
            "",
            "",
            "",
        ]
    shares = [f"{wording.share(e)} {wording.share_range(e)}" for e in (point.closed, point.lost, point.selectivity)]
    coherent = f"{wording.share(method.coherent)}" if method.coherent is not None else "–"
    other = wording.nats(method.other_change) if method.other_change is not None else "–"
    return [method.method, wording.number(point.strength), *shares, coherent, other]
