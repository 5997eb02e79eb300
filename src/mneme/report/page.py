"""What every page is made with: one self-contained HTML file, no network, the rules of safety, and the limit of its size.

Safety: autoescape is on for everything that comes from a record; style and script are files of this package, allowed by their
SHA-256 in a Content-Security-Policy whose default is 'none'. Control characters and overrides of the reading direction are
shown as escapes; paths are shown as names, without home folders.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from types import ModuleType
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined, Template
from markupsafe import Markup

from mneme.errors import BadRun
from mneme.plain import plain
from mneme.report import wording
from mneme.report.places import place, without_home
from mneme.report.terms import terms

NO_MORE = "base-uri 'none'; form-action 'none'"
LARGEST_PAGE = 5_000_000
"""Bytes that a page stays under."""
FRAME = "frame.html.j2"
"""What the pages without script have in common: head, bar at the top, footer, macros."""


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
    environment.filters |= {"place": place, "cut": wording.cut, "cut_lines": wording.cut_lines, "together": wording.together}
    environment.globals["terms"] = terms
    environment.globals.update(spoken)
    return environment.get_template(name)


def _at_large(value: object) -> object:
    """A value as anybody may read it: without the home folder of who made the page. What is markup already stays."""
    return without_home(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def source_of(page: str) -> str:
    """The page as it is written: hostile characters, which escaping leaves in place, are shown as escapes such as `\\x1b`."""
    return plain(page, lines=True)


def render_page(
    template: str,
    styles: Sequence[str],
    *,
    record: str,
    view: ModuleType,
    notes: Sequence[str],
    again: str = "",
    **values: Any,
) -> str:
    """The whole page of `template`, a child of `FRAME`, without script. `record`: the file that holds what it shows; `view`:
    the module of its words, `v` in the template; `notes`: how models and data were read, a sentence each; `again`: the command
    that makes it, shown where it is known.

    Raises BadRun where it would be larger than 5 MB (texts of megabytes).
    """
    style = "".join(package_file(name) for name in ("style.css", *styles))
    page = page_template(template, FRAME, v=view, w=wording).render(
        style=Markup(style),
        csp=f"default-src 'none'; style-src {csp_hash(style)}; {NO_MORE}",
        notes=notes,
        again=again,
        **values,
    )
    page = source_of(page)
    if len(page.encode()) >= LARGEST_PAGE:
        raise BadRun(f"The page would exceed {LARGEST_PAGE:,} bytes. Shorten names and texts; {record} is whole.")
    return page
