"""The pages of screen, dpo and unlearn: what they say, that hostile text stays text, and rules that hold for every page."""

import re
from collections.abc import Callable

import pytest

from mneme.report import preferences_view, screen_view, unlearn_view, wording
from mneme.report.audit import render_html
from mneme.report.compare import render_compare
from mneme.report.compare_logs import render_logs
from mneme.report.lines import Point, lines_chart
from mneme.report.measure import render_measurement
from mneme.report.preferences import render_preferences
from mneme.report.repair import render_repair
from mneme.report.screen import render_screening
from mneme.report.terms import TERMS
from mneme.report.unlearn import render_unlearning
from tests.repair.test_command import report as sample_repair
from tests.report.compared import sample_lineage, sample_logs
from tests.report.measured import sample_measurement
from tests.report.runs import sample_preferences, sample_screening, sample_unlearning
from tests.report.sample import HOSTILE, sample_report

PAGES: dict[str, Callable[[], str]] = {
    "audit": lambda: render_html(sample_report()),
    "measure": lambda: render_measurement(sample_measurement()),
    "repair": lambda: render_repair(sample_repair()),
    "screen": lambda: render_screening(sample_screening()),
    "dpo": lambda: render_preferences(sample_preferences()),
    "unlearn": lambda: render_unlearning(sample_unlearning()),
    "compare": lambda: render_compare(sample_lineage()),
    "compare-logs": lambda: render_logs(sample_logs()),
}


def words_of(page: str) -> str:
    """What a reader sees of it: text without tags, style, script and data."""
    body = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_a_screening_says_what_dropping_buys() -> None:
    words = words_of(render_screening(sample_screening()))
    assert "16 of 40 rows set aside: that avoids 62 % of the harm, as many at random 20 %." in words
    assert "Three short trainings of 1 step with" in words
    assert "the kept rows 24 +0.19 [+0.090, +0.29] 62 % [52, 72]" in words
    assert screen_view.screening_outcome(sample_screening()) == "contained"
    without = words_of(render_screening(sample_screening(with_trial=False)))
    assert "what that buys was not measured. Not measured: the trial was turned off" in without
    assert screen_view.screening_outcome(sample_screening(with_trial=False)) == "inconclusive"


@pytest.mark.parametrize(
    ("change", "headline", "outcome"),
    [
        (-3.2, "The chosen answers became less likely (−3.2 nats per answer): they were displaced.", "side-effects"),
        (3.2, "The chosen answers became more likely (+3.2 nats per answer).", "contained"),
        (0.5, "The chosen answers are not shown to have moved either way (+0.50 nats per answer).", "inconclusive"),
    ],
)
def test_a_preference_training_says_which_way_the_chosen_answers_went(change: float, headline: str, outcome: str) -> None:
    run = sample_preferences(change=change)
    assert headline in words_of(render_preferences(run))
    assert preferences_view.preferences_outcome(run) == outcome


def test_a_preference_training_shows_every_look() -> None:
    words = words_of(render_preferences(sample_preferences()))
    assert "step 6 −3.2 [−4.2, −2.2] −6.4 [−7.4, −5.4] 75 % [55, 95] no" in words
    assert "Against displacement: filter ln-ches, 0.5 kept, SFT weight 0.1, reward calibration." in words
    few = sample_preferences(watched=3)
    assert "too few (3 pairs, 8 needed)" in words_of(render_preferences(few))
    assert "Too few pairs were watched" in preferences_view.preferences_headline(few)


def test_an_unlearning_says_what_is_left_and_what_comes_back() -> None:
    words = words_of(render_unlearning(sample_unlearning()))
    assert "50 % of what was recalled of the text to forget is still there; nothing was recalled of the text to keep" in words
    assert "Training on 10 related texts moves what is recalled of unseen texts 50 % → 80 %." in words
    assert "+1.5 [+1.4, +1.6] 0.50 [0.40, 0.60] 2.0 [1.9, 2.1]" in words
    alone = sample_unlearning().relearning[0].model_copy(update={"documents": 1})
    assert unlearn_view.comes_back(alone).startswith("Training on 1 related text moves")


READ = "Conversations are written with the chat template of TUNED; BASE has none."
WITH_NOTES: dict[str, Callable[[], str]] = {
    "audit": lambda: render_html(sample_report().model_copy(update={"notes": [READ]})),
    "measure": lambda: render_measurement(sample_measurement().model_copy(update={"notes": [READ]})),
    "repair": lambda: render_repair(sample_repair().model_copy(update={"notes": [READ]})),
    "screen": lambda: render_screening(sample_screening().model_copy(update={"notes": [READ]})),
    "dpo": lambda: render_preferences(sample_preferences().model_copy(update={"notes": [READ]})),
    "unlearn": lambda: render_unlearning(sample_unlearning().model_copy(update={"notes": [READ]})),
}


@pytest.mark.parametrize("name", WITH_NOTES)
def test_how_models_and_data_were_read_stands_on_the_pages_of_models(name: str) -> None:
    assert f"How it was read {READ}" in words_of(WITH_NOTES[name]())
    assert READ not in words_of(PAGES[name]())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    for page in (
        render_screening(sample_screening(text).model_copy(update={"notes": [text]})),
        render_preferences(sample_preferences(text)),
        render_unlearning(sample_unlearning(text)),
        render_compare(sample_lineage(text)),
        render_logs(sample_logs(text)),
    ):
        assert not re.search(r"<(script|img|svg onload)", page)
        assert "default-src &#39;none&#39;" in page
        assert "\x1b" not in page


NEEDED = {
    "KL": r"\bKL\b",
    "nats": r"\bnats\b",
    "latent": r"\blatents?\b",
    "known tokens": r"[Kk]nown tokens",
    "silent": r"\bsilent\b",
    "ν": "ν",
    "causal": r"\b[Cc]ausal\b",
    "energy": r"\b[Ee]nergy\b",
    "in the band": r"[Ii]n the band",
    "MDE": r"\bMDE\b",
    "kappa": r"\b[Kk]appa\b",
}


@pytest.mark.parametrize("name", PAGES)
def test_terms_are_explained_on_the_page_that_uses_them(name: str) -> None:
    page = PAGES[name]()
    explained = {dt.lower() for dt in re.findall(r"<dt>([^<]*)</dt><dd>", page) if dt in TERMS}
    told = words_of(page)
    for term, pattern in NEEDED.items():
        if re.search(pattern, told):
            assert any(term.lower() in one for one in explained) or f"{term}: " in told, f"{term} on the page of {name}"


@pytest.mark.parametrize("name", PAGES)
def test_one_thing_is_not_told_in_the_plural(name: str) -> None:
    nouns = "tensor|text|passage|document|row|step|pair|question|answer|latent|area|prompt|token|example|unit"
    assert not re.search(rf"(?<![\d.,−+])\b1 ({nouns})s\b", words_of(PAGES[name]()))


def test_counts() -> None:
    assert [wording.counted(n, "tensor") for n in (0, 1, 2, 1200)] == ["0 tensors", "1 tensor", "2 tensors", "1,200 tensors"]
    assert wording.counted(2, "token that counts", "tokens that count") == "2 tokens that count"


def test_numbers_of_a_headline_keep_their_units() -> None:
    assert wording.together("lost 62 % and 3 points of 4") == "lost 62\u00a0% and 3\u00a0points of 4"


def test_text_is_cut_behind_a_word() -> None:
    assert wording.cut("one two three", 13) == "one two three"
    assert wording.cut("one two, three", 12) == "one two…"
    assert wording.cut("x" * 20, 10) == "x" * 9 + "…"
    assert wording.cut_lines("one two\nthree four", 14) == "one two\nthree…"
    long = " ".join(["antidisestablishment"] * 40)
    page = render_repair(sample_repair(long))
    shown = re.findall(r"<li>([^<]*)</li>", page)
    assert all(text.endswith("antidisestablishment…") and len(text) <= 281 for text in shown if text.startswith("antidis"))
    assert any(text.startswith("antidis") for text in shown)


def test_lines_have_zero_in_view_and_their_intervals() -> None:
    points = [Point(0, 1.0, 0.5, 1.5), Point(10, 3.0, 2.0, 4.0)]
    chart = lines_chart([("a", points), ("b", points[:1])], "what it shows", "nats")
    assert chart.count("<polyline") == 1
    assert "a, step 10: 3.0 nats" in chart
    assert re.findall(r'class="end">([^<]*)</text>', chart)[:2] == ["0", "4.0"]
    assert lines_chart([("a", points[:1])], "", "") == ""
