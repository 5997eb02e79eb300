"""The page in real Chromium: no requests, hostile text inert, keyboard, sorting, phone, dark mode."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mneme.report.audit import write_html
from mneme.report.measure import render_measurement
from mneme.report.page import LARGEST_PAGE
from mneme.report.preferences import render_preferences
from mneme.report.repair import render_repair
from mneme.report.screen import render_screening
from mneme.report.unlearn import render_unlearning
from mneme.results import Report
from tests.repair.test_command import report as sample_repair
from tests.report.measured import sample_measurement
from tests.report.runs import sample_preferences, sample_screening, sample_unlearning
from tests.report.sample import HOSTILE, hostile_report, large_report, sample_report

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian: apt-get install chromium)"),
]
Page = playwright_api.Page
Opened = tuple[Page, list[str]]
Decided = tuple[Page, tuple[str, ...], list[str]]

CONTRAST = """() => {
  const channels = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const over = (top, below) => { const a = top[3] ?? 1; return [0, 1, 2].map((i) => top[i] * a + below[i] * (1 - a)); };
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    return over(channels(getComputedStyle(element).backgroundColor), behind(element.parentElement));
  };
  const bad = [];
  for (const element of document.querySelectorAll("main *, header *, footer *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || element.closest("svg, .visually-hidden")) continue;
    const [a, b] = [light(over(channels(getComputedStyle(element).color), behind(element))), light(behind(element))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push(element.className + " '" + element.textContent.slice(0, 20) + "' " + ratio.toFixed(2));
  }
  return bad;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """One Chromium for the module."""
    with playwright_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser: object, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens a report's page; the list collects requests beyond the file, console errors, page errors and dialogs."""
    contexts = []

    def opened(report: Report, *, width: int = 1200, height: int = 800, dark: bool = False) -> Opened:
        path = write_html(report, tmp_path / "report.html")
        context = browser.new_context(  # type: ignore[attr-defined]
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page, complaints = context.new_page(), []
        page.on("request", lambda r: complaints.append(r.url) if r.url != path.as_uri() else None)
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("dialog", lambda d: (complaints.append(d.message), d.dismiss()))
        page.goto(path.as_uri())
        return page, complaints

    yield opened
    for context in contexts:
        context.close()


def open_all(page: Page) -> None:
    """Opens every effect, latent and example."""
    page.evaluate("document.querySelectorAll('button.open[aria-expanded=false]').forEach((b) => b.click())")
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.wait_for_timeout(100)


def test_nothing_is_requested_and_nothing_complains(show: Callable[..., Opened]) -> None:
    page, complaints = show(sample_report())
    open_all(page)
    assert complaints == []
    assert page.locator(".token").count() > 100


def test_hostile_text_is_inert(show: Callable[..., Opened]) -> None:
    page, complaints = show(hostile_report())
    open_all(page)
    page.hover(".token >> nth=2")
    assert complaints == []
    assert page.evaluate("window.pwned") is None
    assert page.locator("img, main script, main svg svg").count() == 0
    assert HOSTILE[0] in page.locator(".tokens").first.text_content()
    assert "{{7*7}}" in page.locator(".tokens").first.text_content()


def test_an_injected_script_would_not_run(show: Callable[..., Opened]) -> None:
    page, _ = show(sample_report())
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.pwned = 1'; document.body.append(s); }"
    )
    assert page.evaluate("window.pwned") is None


def test_opens_by_keyboard_down_to_a_token(show: Callable[..., Opened]) -> None:
    page, _ = show(sample_report())
    chemistry = page.locator("button.open", has_text="chemistry")
    chemistry.focus()
    assert chemistry.get_attribute("aria-expanded") == "false"
    page.keyboard.press("Enter")
    assert chemistry.get_attribute("aria-expanded") == "true"
    page.keyboard.press("Tab")
    assert "Compounds that an enzyme acts on" in page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    page.locator("#effect-2 .tokens").first.wait_for()
    page.keyboard.press("Tab")
    row = page.locator(".tokens:focus")
    figure = page.locator(".example", has=row)
    assert figure.locator(".readout").inner_text().startswith("benzene activation 3.10")
    page.keyboard.press("ArrowRight")
    assert figure.locator(".readout").inner_text().startswith("has activation")


def test_both_models_are_shown_at_the_strongest_token(show: Callable[..., Opened]) -> None:
    page, _ = show(sample_report())
    page.click("button.open >> text=chemistry")
    page.click("#effect-2 summary >> nth=0")
    assert page.locator("#effect-2 .both").first.inner_text() == "After benzene base says liquid, tuned says solid"


def test_columns_sort_both_ways_by_keyboard(show: Callable[..., Opened]) -> None:
    page, _ = show(sample_report())

    def names() -> list[str]:
        return page.locator(".effects .label").all_inner_texts()

    assert names()[:2] == ["biology", "chemistry"]
    head = page.locator(".effects button.sort", has_text="Area")
    head.focus()
    page.keyboard.press("Enter")
    assert names() == sorted(names(), key=str.lower)
    page.keyboard.press("Enter")
    assert names() == sorted(names(), key=str.lower, reverse=True)
    page.click(".effects button.sort >> text=P")
    assert names()[:2] == ["biology", "chemistry"]
    assert page.locator(".effects th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.click(".effects button.sort >> text=Size")
    assert names()[-1] == "biology"


@pytest.mark.parametrize("report", [sample_report, hostile_report], ids=["sample", "hostile"])
def test_no_sideways_scrolling_on_a_phone(show: Callable[..., Opened], report: Callable[[], Report]) -> None:
    page, _ = show(report(), width=375, height=700)
    open_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_contrast(show: Callable[..., Opened], dark: bool) -> None:
    page, _ = show(sample_report(), dark=dark)
    open_all(page)
    assert page.evaluate(CONTRAST) == []


def test_everything_is_reachable_without_script(browser: object, tmp_path: Path) -> None:
    path = write_html(sample_report(), tmp_path / "report.html")
    context = browser.new_context(java_script_enabled=False)  # type: ignore[attr-defined]
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("#effect-2").is_visible()
    assert "Facts about compounds" in page.locator("#effect-2").inner_text()
    context.close()


OTHERS = {
    "measure": (sample_measurement, render_measurement, ("Change", "Shown")),
    "repair": (sample_repair, render_repair, ("Undone", "Gain lost")),
    "screen": (sample_screening, render_screening, ("gradient", "Kept")),
    "dpo": (sample_preferences, render_preferences, ("Chosen", "Rejected")),
    "unlearn": (sample_unlearning, render_unlearning, ("Still recalled", "Change")),
}


@pytest.fixture
def other(browser: object, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Decided]:
    """The page of another command on a phone, what of it decides, and its complaints."""
    sample, render, decides = OTHERS[request.param]
    path = tmp_path / "page.html"
    path.write_text(render(sample()), encoding="utf-8")
    context = browser.new_context(viewport={"width": 390, "height": 844})  # type: ignore[attr-defined]
    page, complaints = context.new_page(), []
    page.on("request", lambda r: complaints.append(r.url) if r.url != path.as_uri() else None)
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    yield page, decides, complaints
    context.close()


@pytest.mark.parametrize("other", OTHERS, indirect=True)
def test_what_decides_is_seen_on_a_phone(other: Decided) -> None:
    """Nothing is off the screen sideways, and every row of a table shows the deciding cells beside their names."""
    page, decides, complaints = other
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for label in decides:
        cells = page.locator(f'td[data-label="{label}"]')
        assert cells.count() > 0
        for cell in cells.all():
            box = cell.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390
            assert label in cell.evaluate("(cell) => getComputedStyle(cell, '::before').content")
    assert page.evaluate(CONTRAST) == []


def test_500_latents_load_in_time(show: Callable[..., Opened], tmp_path: Path) -> None:
    page, complaints = show(large_report())
    assert (tmp_path / "report.html").stat().st_size < LARGEST_PAGE
    assert page.locator(".latents .item").count() == 500
    timing = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert timing < 5000
    page.click(".latents button.open >> nth=0")
    assert page.locator("#latent-1 .token").count() == 400
    assert complaints == []
