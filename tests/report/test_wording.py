"""The words and numbers that a reader sees, checked by hand."""

import shlex

import pytest

from mneme.report import wording
from tests.report.sample import effect, estimate, sample_report


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.314, "−0.31"), (1234.5, "1,234"), (0.0042, "0.0042"), (2.5e-7, "2.5e−7"), (-12.6, "−13")],
)
def test_number(value: float, text: str) -> None:
    assert wording.number(value) == text


def test_signed_number() -> None:
    assert wording.number(0.28, signed=True) == "+0.28"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.004, "<0.01"), (0.5, "0.50"), (0.99, "0.99"), (0.9971, ">0.99"), (1.0, ">0.99")]
)
def test_probability_never_claims_certainty(value: float, text: str) -> None:
    assert wording.shown_probability(value) == text


def test_fractions_are_shown_in_points() -> None:
    accuracy = estimate(-0.46, -0.52, -0.4)
    assert (wording.magnitude(accuracy), wording.interval(accuracy)) == ("−46 points", "[−52, −40]")


def test_small_effects_show_tenths_in_all_three_numbers() -> None:
    rate = estimate(0.01, -0.02, 0.04, "rate")
    assert (wording.magnitude(rate), wording.interval(rate)) == ("+1.0 points", "[−2.0, +4.0]")


def test_points_and_nats_are_not_rescaled() -> None:
    assert wording.magnitude(estimate(-46, -52, -40, "points of accuracy")) == "−46 points"
    assert wording.magnitude(estimate(0.31, 0.2, 0.4, "nats per token")) == "+0.31 nats per token"


def test_no_minus_zero() -> None:
    assert wording.magnitude(estimate(-0.00001, -0.3, 0.3)) == "0 points"


@pytest.mark.parametrize(("value", "text"), [(8.42, "8.4 s"), (160, "2 min 40 s"), (11_100, "3 h 05 min")])
def test_seconds(value: float, text: str) -> None:
    assert wording.seconds(value) == text


def test_headline_names_what_lies_beyond_the_purpose() -> None:
    report = sample_report(effects=[effect("biology", 0.99, -0.9, intended=True), effect("chemistry", 0.9, -0.46)])
    assert wording.headline(report) == "Beyond its purpose (biology), chemistry got worse (−46 points)."
    assert wording.outcome(report) == "side-effects"


def test_headline_without_a_purpose_counts_every_effect() -> None:
    report = sample_report(effects=[effect("biology", 0.99, -0.9), effect("law", 0.1, 0.0)])
    assert wording.headline(report) == "Biology got worse (−90 points)."
    assert "every effect counts as a side effect" in wording.purpose_note(report)


def test_headline_when_the_change_stays_within_its_purpose() -> None:
    report = sample_report(effects=[effect("biology", 0.99, -0.9, intended=True), effect("law", 0.49, -0.1)])
    assert wording.headline(report) == "The change stays within its purpose, biology."
    assert wording.outcome(report) == "contained"


def test_silence_and_doubt_are_said_as_such() -> None:
    silent = sample_report(verdict="no detectable change", effects=[])
    doubt = sample_report(verdict="inconclusive", effects=[])
    assert "cannot detect any difference" in wording.headline(silent)
    assert "does not say where" in wording.headline(doubt)


def test_an_intended_effect_that_is_not_seen_is_told() -> None:
    report = sample_report(effects=[effect("biology", 0.2, -0.01, intended=True)])
    assert "This audit sees no effect in biology." in wording.purpose_note(report)


def test_many_side_effects_are_counted() -> None:
    report = sample_report(effects=[effect(name, 0.9, -0.3) for name in "abcdef"])
    assert wording.headline(report).endswith("c got worse (−30 points) and 3 more.")


def test_command_survives_a_shell() -> None:
    report = sample_report(effects=[effect("law & order; rm -rf /", 0.9, -0.3, intended=True)])
    words = shlex.split(wording.command(report))
    assert words[:4] == ["mneme", "audit", report.pair.base, report.pair.tuned]
    assert words[-1] == "law & order; rm -rf /"


def test_short_is_the_first_clause() -> None:
    assert wording.short("text about law; fires on “the”") == "text about law"
    assert wording.short("x" * 200) == "x" * 99 + "…"
    assert wording.short("") == ""


def test_the_page_says_what_family_was_corrected_for_and_what_would_have_been_seen() -> None:
    first, second, third = (
        effect.model_copy(update={"q_value": 0.5, "power": power, "finding": "unaffected", "excess": excess})
        for effect, power, excess in zip(
            sample_report().effects[:3], (0.12, 0.2, 1.0), (sample_report().effects[0].magnitude, None, None), strict=True
        )
    )
    said = wording.family_note(sample_report(effects=[first, second, third]))
    assert "over the 4 claims made of areas" in said
    assert "a loss of 12 % to 100 % would probably have been found" in said
    assert "In 1 of them none would have been" in wording.family_note(
        sample_report(effects=[first, second.model_copy(update={"power": None})])
    )
    assert wording.family_note(sample_report(effects=[])) == ""


def test_beside_every_verdict_that_shows_nothing_stands_what_would_have_been_found() -> None:
    quiet = sample_report().effects[0].model_copy(update={"q_value": 0.5, "finding": "unaffected", "power": 0.071})
    assert wording.said_of(quiet) == "unaffected; a change of 7.1 points would have been found"
    eased = wording.said_of(quiet.model_copy(update={"power_singly": 0.05}))
    assert eased == "unaffected; a change of 7.1 points would have been found (5.0 where words change one by one)"
    assert wording.said_of(quiet.model_copy(update={"power_singly": 0.07})) == wording.said_of(quiet)
    assert wording.said_of(quiet.model_copy(update={"power": None})) == "unaffected; no change would have been found"
    open_ = quiet.model_copy(update={"finding": "not enough evidence", "more_passages": 40})
    assert wording.said_of(open_).startswith("not enough evidence: about 40 more passages; a change of 7.1 points")
    assert wording.said_of(quiet.model_copy(update={"finding": "affected"})) == "affected"
