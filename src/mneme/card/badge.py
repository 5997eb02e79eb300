"""The badge: one self-contained SVG, as wide as its words, without a font or a script of its own."""

from xml.sax.saxutils import escape

from mneme.options import counted
from mneme.plain import plain
from mneme.report import wording
from mneme.results import Report

_COLOURS: dict[wording.Outcome, str] = {
    "side-effects": "#a63a1c",
    "contained": "#1b6e52",
    "silent": "#1b6e52",
    "inconclusive": "#5b626a",
}
"""Of the page; white on them has a contrast above 4.5."""
_WIDTH = 6.6
"""Pixels of a character at 11 px, on the safe side of Verdana's mean."""


def badge_words(report: Report) -> str:
    """'2 side effects', 'no side effect found', 'inconclusive'."""
    outcome = wording.outcome(report)
    found = len(wording.side_effects(report))
    if outcome == "side-effects":
        return counted(found, "side effect") if found else "everything changed"
    return {"contained": "no side effect found", "silent": "no difference"}.get(outcome, "inconclusive")


def badge(report: Report) -> str:
    """The SVG."""
    left, right = "mneme audit", badge_words(report)
    one, two = (round(_WIDTH * len(words) + 12) for words in (left, right))
    told = escape(plain(f"{left}: {right}"), {'"': "&quot;"})
    colour = _COLOURS[wording.outcome(report)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{one + two}" height="20" role="img" aria-label="{told}">'
        f"<title>{told}</title>"
        f'<rect width="{one}" height="20" fill="#1d2125"/><rect x="{one}" width="{two}" height="20" fill="{colour}"/>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="{one / 2:g}" y="14">{escape(left)}</text><text x="{one + two / 2:g}" y="14">{escape(plain(right))}</text>'
        "</g></svg>\n"
    )
