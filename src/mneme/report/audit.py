"""The page: one self-contained HTML file, no network, readable without script except for the token examples.

Safety: autoescape is on for everything that comes from a report; the style and the script are files of this package,
allowed by their SHA-256 in a Content-Security-Policy whose default is 'none'; examples are data, set with `textContent` only.
Control characters and overrides of the reading direction are shown as escapes; paths are shown as names, without home folders.
"""

import base64
import hashlib
from functools import cache
from importlib import resources
from pathlib import Path
from types import ModuleType

from jinja2 import DictLoader, Environment, StrictUndefined, Template
from markupsafe import Markup

from mneme.errors import BadRun
from mneme.plain import plain
from mneme.report import figures, wording
from mneme.report.examples import Trim, examples_json
from mneme.report.places import place, without_home
from mneme.results import Latent, Report
from mneme.runs import write_atomic

NO_MORE = "base-uri 'none'; form-action 'none'"
LARGEST_PAGE = 5_000_000
"""Bytes that a page stays under."""

TRIMS = (Trim(10, 128, 600), Trim(10, 40, 500), Trim(5, 40, 500), Trim(3, 40, 400), Trim(2, 32, 300), Trim(1, 24, 200))
"""Tried in this order until the page is small enough."""


def package_file(name: str) -> str:
    """The text of a file that ships beside this module."""
    return resources.files("mneme.report").joinpath(name).read_text(encoding="utf-8")


def csp_hash(text: str) -> str:
    """How a Content-Security-Policy names an inline style or script that it allows."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


@cache
def page_template(name: str, *parts: str, **spoken: ModuleType) -> Template:
    """The template `name`, which may include `parts`, under the rules of every page: whatever is put in is escaped, home
    folders are left out, and a name that is not there is an error. `spoken`: modules that it calls by these names."""
    environment = Environment(
        loader=DictLoader({file: package_file(file) for file in (name, *parts)}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_at_large,
    )
    environment.filters["place"] = place
    environment.globals.update(spoken)
    return environment.get_template(name)


def _at_large(value: object) -> object:
    """A value as anybody may read it: without the home folder of who made the page. What is markup already stays."""
    return without_home(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def source_of(page: str) -> str:
    """The page as it is written: hostile characters, which escaping leaves in place, are shown as escapes such as `\\x1b`."""
    return plain(page, lines=True)


def _shown_latents(report: Report, trim: Trim) -> list[Latent]:
    """Evidence of the effects first, in their order, then the rest by change energy; cut at the limit of the trim."""
    cited = {name: place for place, name in enumerate(n for e in wording.by_probability(report) for n in e.evidence)}
    ranked = sorted(report.latents, key=lambda x: (cited.get(x.id, len(cited)), -x.change_energy))
    return ranked[: trim.latents]


def _render(report: Report, timings: dict[str, float] | None, trim: Trim, trimmed: bool) -> str | None:
    """The page, or None where it would be too large; the examples alone are asked first, because they are most of it."""
    style, script = package_file("style.css"), package_file("audit.js")
    effects = wording.by_probability(report)
    limits = figures.axis_limits(effects)
    latents = _shown_latents(report, trim)
    data = examples_json(latents, trim)
    if len(data) >= LARGEST_PAGE:
        return None
    page = page_template("audit.html.j2", "parts.html.j2", w=wording).render(
        report=report,
        effects=effects,
        bars={e.area: figures.interval_bar(e, limits[wording.unit_name(e.magnitude.unit)]) for e in effects},
        latents=latents,
        by_id={latent.id: latent for latent in latents},
        place={latent.id: number for number, latent in enumerate(latents)},
        layers_chart=figures.layers_chart(report.layers),
        timings=timings or {},
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
