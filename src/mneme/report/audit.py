"""The page of an audit, readable without script except for the token examples, which are data, set with `textContent` only.

Safety and what else holds for every page: `report/page.py`.
"""

from pathlib import Path

from markupsafe import Markup

from mneme.errors import BadRun
from mneme.report import figures, next_steps, wording
from mneme.report.examples import Trim, examples_json
from mneme.report.page import LARGEST_PAGE, NO_MORE, csp_hash, package_file, page_template, source_of
from mneme.results import Latent, Report
from mneme.runs import write_atomic

TRIMS = (Trim(10, 128, 600), Trim(10, 40, 500), Trim(5, 40, 500), Trim(3, 40, 400), Trim(2, 32, 300), Trim(1, 24, 200))
"""Tried in this order until the page is small enough."""
LEGIBLE = 0.75
"""Balanced accuracy on held-out contexts from which the words of a latent are taken to say where it fires: half-way from a
guess (0.5) to certainty. A round number that was never varied."""
_NO_STEP = ("total", "planned", "peak_bytes", "planned_peak_bytes")
"""Entries of the timings that are no stage."""


def _shown_latents(report: Report, trim: Trim) -> list[Latent]:
    """Evidence of the effects first, in their order, then the rest by change energy; cut at the limit of the trim. Those
    that no person can read stand below all others."""
    cited = {name: place for place, name in enumerate(n for e in wording.by_probability(report) for n in e.evidence)}
    ranked = sorted(report.latents, key=lambda x: (cited.get(x.id, len(cited)), -x.change_energy))
    return sorted(ranked[: trim.latents], key=lambda latent: not legible(latent))


def legible(latent: Latent) -> bool:
    """Its words find its own text again, or it is the mean of the change, which fires everywhere: a person who reads them
    knows where it fires."""
    score = latent.description_score
    return latent.label == "mean" or (bool(latent.description) and score is not None and score >= LEGIBLE)


def _render(report: Report, timings: dict[str, float] | None, trim: Trim, trimmed: bool) -> str | None:
    """The page, or None where it would be too large; the examples alone are asked first, because they are most of it."""
    style, script = package_file("style.css"), package_file("audit.js")
    effects = wording.by_probability(report)
    limits = figures.axis_limits(effects)
    latents = _shown_latents(report, trim)
    data = examples_json(latents, trim)
    if len(data) >= LARGEST_PAGE:
        return None
    page = page_template("audit.html.j2", "parts.html.j2", w=wording, n=next_steps).render(
        report=report,
        effects=effects,
        bars={e.area: figures.interval_bar(e, limits[wording.unit_name(e.magnitude.unit)]) for e in effects},
        latents=latents,
        by_id={latent.id: latent for latent in latents},
        place={latent.id: number for number, latent in enumerate(latents)},
        layers_chart=figures.layers_chart(report.layers),
        timings=timings or {},
        steps=next_steps.steps_of({name: spent for name, spent in (timings or {}).items() if name not in _NO_STEP}),
        legible=[latent.id for latent in latents if legible(latent)],
        trim_note=trim.told() if trimmed else "",
        style=Markup(style),
        script=Markup(script),
        csp=f"default-src 'none'; style-src {csp_hash(style)}; script-src {csp_hash(script)}; {NO_MORE}",
        data=Markup(data),
    )
    page = source_of(page)
    return page if len(page.encode()) < LARGEST_PAGE else None


def render_html(report: Report, timings: dict[str, float] | None = None) -> str:
    """The whole page. `timings`: measured seconds by stage, shown beside the planned cost; None where they are not known.

    Above 5 MB examples are trimmed by the rule of `TRIMS`, and the page says so; `report.json` stays whole. Raises BadRun
    where even that does not fit (names or descriptions of megabytes).
    """
    page = _render(report, timings, Trim(10**9, 10**9, 10**9), trimmed=False)
    for trim in TRIMS:
        if page is not None:
            return page
        page = _render(report, timings, trim, trimmed=True)
    if page is None:
        raise BadRun(
            f"The page of this report is larger than {LARGEST_PAGE:,} bytes even without most of its examples. "
            "Shorten the names and descriptions in the areas file; report.json is whole."
        )
    return page


def write_html(report: Report, path: str | Path, timings: dict[str, float] | None = None) -> Path:
    """Writes the page to `path` atomically: a reader sees the old file or the whole new one.

    Raises BadRun where the folder cannot be written.
    """
    target = Path(path)
    write_atomic(target, render_html(report, timings).encode())
    return target
