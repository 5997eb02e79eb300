"""The terminal table says what the page says, and nothing in a report can drive the terminal."""

import io

from rich.console import Console

from mneme.report.audit_text import QUIET_SHOWN, print_report
from mneme.results import Effect, Estimate, Report
from tests.report.sample import effect, sample_report


def printed(report: Report, *, terminal: bool = False, width: int = 120) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=width, force_terminal=terminal))
    return stream.getvalue()


def test_effects_come_most_probable_first_with_interval_and_signal() -> None:
    lines = printed(sample_report()).splitlines()
    rows = [line for line in lines if "points" in line and "[" in line]
    assert rows[0].split()[:4] == ["biology", ">0.99", "worse", "−97"]
    assert " ".join(rows[1].split()) == "chemistry 0.93 worse −46 points [−52, −40] side effect likelihood, latents"


def test_plain_when_not_a_terminal() -> None:
    assert "\x1b" not in printed(sample_report())
    assert "\x1b" in printed(sample_report(), terminal=True)


def test_markup_and_control_characters_are_inert() -> None:
    text = printed(sample_report(reason="[red]\x1b[2Jboo[/red]", effects=[effect("a\x1b]0;title\x07", 0.9, -0.3)]))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]" in text


def test_quiet_effects_are_counted_not_listed() -> None:
    text = printed(sample_report(effects=[effect(f"area{i}", 0.1, 0.0) for i in range(QUIET_SHOWN + 5)]))
    assert "and 5 more that are not affected" in text


def test_absent_areas_are_named() -> None:
    assert "Nothing can be said about wmdp cyber and sycophancy" in printed(sample_report())


def test_a_narrow_terminal_leaves_out_the_signal() -> None:
    text = printed(sample_report(), width=80)
    assert "found by" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def unsettled(**more: object) -> Effect:
    """12 points, and no more known than that: the issue's case of a P that read as confidence."""
    wide = Estimate(value=0.12, low=-0.16, high=0.4, unit="probability", n=8)
    return effect("sycophancy", 0.003, 0.12, kind="behaviour", magnitude=wide, finding="not enough evidence", **more)


def test_no_small_p_stands_beside_evidence_that_is_not_enough() -> None:
    row = next(line for line in printed(sample_report(effects=[unsettled()])).splitlines() if "sycophancy" in line)
    assert "<0.01" not in row
    assert "open" in row
    assert "not enough evidence" in row


def test_an_uncalibrated_p_is_said_to_be_one() -> None:
    found = unsettled().model_copy(update={"probability": None, "calibrated": False, "source": "answers"})
    row = next(line for line in printed(sample_report(effects=[found])).splitlines() if "sycophancy" in line)
    assert "uncalibrated" in row
    assert "<0.01" not in row
