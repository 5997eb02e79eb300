"""Every kind of page under axe-core in a real Chromium, light and dark, wide and narrow: no violation of WCAG A or AA.

`make axe` fetches axe-core from the npm registry into build/axe and runs this; without it the test is skipped. It is no part
of the product: its licence (MPL 2.0) is its own.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mneme.report.audit import render_html
from mneme.report.compare import render_compare
from mneme.report.compare_logs import render_logs
from mneme.report.measure import render_measurement
from mneme.report.preferences import render_preferences
from mneme.report.repair import render_repair
from mneme.report.screen import render_screening
from mneme.report.unlearn import render_unlearning
from tests.repair.test_command import report as sample_repair
from tests.report.compared import sample_lineage, sample_logs
from tests.report.measured import sample_measurement
from tests.report.runs import sample_preferences, sample_screening, sample_unlearning
from tests.report.sample import hostile_report, sample_report

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(__file__).parents[2] / "build" / "axe" / "package" / "axe.min.js"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian: apt-get install chromium)"),
    pytest.mark.skipif(not AXE.is_file(), reason="no axe-core here: make axe fetches it"),
]
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
PAGES: dict[str, Callable[[], str]] = {
    "audit": lambda: render_html(sample_report(), {"words-0000": 1.0, "survey-0000": 2.0}),
    "audit of hostile names": lambda: render_html(hostile_report()),
    "measure": lambda: render_measurement(sample_measurement()),
    "screen": lambda: render_screening(sample_screening()),
    "dpo": lambda: render_preferences(sample_preferences()),
    "unlearn": lambda: render_unlearning(sample_unlearning()),
    "repair": lambda: render_repair(sample_repair()),
    "compare": lambda: render_compare(sample_lineage()),
    "compare-logs": lambda: render_logs(sample_logs()),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def violations(browser: Any, path: Path, scheme: str, width: int) -> list[str]:
    """Rule, impact and first place of everything that axe finds, with all that folds opened."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    try:
        page = context.new_page()
        page.goto(path.as_uri())
        page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        page.evaluate("() => document.querySelectorAll('button[aria-expanded=false]').forEach((one) => one.click())")
        page.add_script_tag(path=str(AXE))
        found = page.evaluate("(tags) => axe.run(document, {runOnly: {type: 'tag', values: tags}})", TAGS)
        assert len(found["passes"]) > 10, "axe has looked at something"
        return [f"{one['id']} ({one['impact']}): {one['nodes'][0]['html'][:160]}" for one in found["violations"]]
    finally:
        context.close()


@pytest.mark.parametrize("width", [1200, 390], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", sorted(PAGES))
def test_page_has_no_violation(browser: Any, tmp_path: Path, kind: str, scheme: str, width: int) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGES[kind](), "utf-8")
    assert violations(browser, path, scheme, width) == []


@pytest.mark.parametrize("kind", sorted(PAGES))
def test_every_column_is_in_sight_on_a_desktop(browser: Any, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGES[kind](), "utf-8")
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.goto(path.as_uri())
    hidden = page.evaluate(
        "() => [...document.querySelectorAll('table')].filter((one) => one.offsetParent !== null &&"
        " one.scrollWidth > one.parentElement.clientWidth + 1).map((one) => one.innerText.slice(0, 80))"
    )
    context.close()
    assert hidden == []
