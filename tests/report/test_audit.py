"""The file itself: escaping, policy, size, atomic writing. What a browser makes of it is in test_browser.py."""

import json
import re
from html import unescape
from pathlib import Path

import pytest

from mneme.errors import BadRun
from mneme.report import audit as html
from mneme.report.audit import render_html, write_html
from mneme.report.examples import Trim, examples_json
from mneme.report.page import LARGEST_PAGE
from mneme.results import NullCheck
from tests.report.sample import HOSTILE, example, hostile_report, large_report, latent, sample_report


def data_of(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    loaded: dict[str, object] = json.loads(found[1])
    return loaded


def test_nothing_is_fetched() -> None:
    page = render_html(sample_report())
    assert "default-src 'none'" in unescape(page)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert "@import" not in page
    assert " style=" not in page


def test_hostile_text_stays_text() -> None:
    page = render_html(hostile_report())
    assert "<script>window.pwned" not in page
    assert "<img src=x" not in page
    assert "<svg onload" not in page
    assert page.count("</script>") == 2
    assert HOSTILE[0] in data_of(page)["vocab"]  # type: ignore[operator]


def test_effects_come_before_everything_but_the_verdict() -> None:
    page = render_html(sample_report())
    places = [page.index(f'id="{name}"') for name in ("verdict", "effects", "latents-title", "layers-title", "null-title")]
    assert places == sorted(places)
    assert page.index(">biology<") < page.index(">chemistry<") < page.index(">history<")


def test_same_report_same_bytes() -> None:
    assert render_html(sample_report()) == render_html(sample_report())


def test_measured_cost_stands_beside_the_planned() -> None:
    page = render_html(sample_report(), {"screen": 8.1, "total": 80.2})
    assert "1 min 32 s" in page
    assert "1 min 20 s" in page
    assert "8.1 s" in page


@pytest.mark.parametrize("verdict", ["no detectable change", "inconclusive"])
def test_an_empty_report_renders(verdict: str) -> None:
    page = render_html(
        sample_report(verdict=verdict, effects=[], latents=[], layers=[], null=[], absent=[], overall={}, top_tokens=[])
    )
    assert "No area could be judged" in page
    assert "not checked against a null" in page


@pytest.mark.parametrize(
    ("value", "word"), [(-0.04, ">silent<"), (0.04, ">silent<"), (-0.3, "not silent"), (0.3, "not silent")]
)
def test_a_null_check_fails_in_either_direction(value: float, word: str) -> None:
    check = NullCheck(name="n", description="d", statistic="s", value=value, threshold=0.05)
    assert word in render_html(sample_report(null=[check]))


def test_examples_keep_tokens_peak_and_likelihood() -> None:
    passage = example(["a", "b", "a"], 1, "x", "y")
    found = json.loads(examples_json([latent("L1.0", "d", [passage])], Trim(10, 128, 10)))
    packed = found["latents"][0][0]
    assert [found["vocab"][i] for i in packed["t"]] == ["a", "b", "a"]
    assert packed["a"][1] == 99
    assert packed["m"] == pytest.approx(3.1)
    assert packed["l"] == [round(100 * x) for x in passage.likelihood_change]
    assert (packed["b"], packed["u"], packed["w"]) == ("x", "y", 1)


def test_a_trimmed_window_keeps_the_strongest_token() -> None:
    passage = example([f"t{i}" for i in range(100)], 90, "x", "y")
    found = json.loads(examples_json([latent("L1.0", "d", [passage])], Trim(1, 24, 1)))
    packed = found["latents"][0][0]
    assert len(packed["t"]) == 24
    assert found["vocab"][packed["t"][packed["a"].index(99)]] == "t90"


def test_tokenizer_marks_become_blanks() -> None:
    found = json.loads(
        examples_json([latent("L1.0", "d", [example(["\u0120the", "\u2581cat", "\u010a"], 0, "", "")])], Trim(9, 9, 9))
    )
    assert found["vocab"] == [" the", " cat", "\n"]
    assert found["latents"][0][0]["w"] == 0


def test_500_latents_fit_untrimmed() -> None:
    page = render_html(large_report())
    assert len(page.encode()) < LARGEST_PAGE
    assert "To keep this page under 5 MB" not in page


def test_a_larger_report_is_trimmed_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "LARGEST_PAGE", 330_000)
    page = render_html(large_report(n_latents=30, n_examples=20, n_tokens=60))
    assert len(page.encode()) < 330_000
    assert "To keep this page under 5 MB" in page


def test_a_page_that_cannot_be_small_enough_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "LARGEST_PAGE", 1000)
    with pytest.raises(BadRun, match=r"Shorten the names and descriptions in the areas file"):
        render_html(sample_report())


@pytest.mark.slow
def test_800_latents_with_20_examples_are_trimmed() -> None:
    page = render_html(large_report(n_latents=800, n_examples=20, n_tokens=60))
    assert len(page.encode()) < LARGEST_PAGE
    assert "To keep this page under 5 MB" in page


def test_written_whole_and_readable_by_others(tmp_path: Path) -> None:
    target = write_html(sample_report(), tmp_path / "new" / "report.html")
    assert target.read_text(encoding="utf-8") == render_html(sample_report())
    assert [p.name for p in target.parent.iterdir()] == ["report.html"]


def test_a_write_that_fails_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(BadRun, match=r"No room on disk while writing .*report.html"):
        write_html(sample_report(), target)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRun, match="Give a folder that you may write to"):
        write_html(sample_report(), tmp_path / "file" / "report.html")


def test_without_a_dictionary_the_page_says_that_nothing_was_looked_for() -> None:
    report = sample_report()
    environment = report.environment.model_copy(update={"dictionary": "none"})
    page = render_html(report.model_copy(update={"latents": [], "environment": environment}))
    assert "No dictionary was asked for" in page
    assert "No latent was learned" in render_html(report.model_copy(update={"latents": []}))
