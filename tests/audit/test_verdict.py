"""The verdict of a whole report: a model to which all text became unlikely is broken, whatever single areas say."""

import pytest

from mneme.audit.verdict import BROKEN, headline_verdict
from mneme.report import wording
from mneme.results import AbsentArea, Estimate
from tests.report.sample import sample_report


def loss(value: float, low: float) -> Estimate:
    return Estimate(value=value, low=low, high=2 * value - low, unit="nats per token", n=50)


ABSENT = [AbsentArea(area="law", kind="capability", reason="too few words", passages=1)]
QUIET = [one.model_copy(update={"finding": "unaffected"}) for one in sample_report().effects]
OPEN = [one.model_copy(update={"finding": "not enough evidence"}) for one in sample_report().effects]
FOUND = [one.model_copy(update={"finding": "affected"}) for one in sample_report().effects]


@pytest.mark.parametrize("effects", [[], QUIET, OPEN, FOUND])
def test_loss_of_nearly_everything_is_never_no_change(effects: list) -> None:  # type: ignore[type-arg]
    before, _ = headline_verdict(effects, ABSENT, None, named=False, loss=loss(BROKEN, 0.5 * BROKEN))
    assert before == headline_verdict(effects, ABSENT, None, named=False)[0]
    verdict, reason = headline_verdict(effects, ABSENT, None, named=False, loss=loss(2.0, 1.5))
    assert (verdict, reason.startswith("Broken as a whole: the text became less likely by 2.00 nats")) == ("change", True)
    assert ("too little is left" in reason) == (effects is not FOUND)
    report = sample_report().model_copy(update={"verdict": verdict, "reason": reason, "effects": effects, "broad": None})
    assert wording.outcome(report) == "side-effects"
    assert "broken as a whole" in wording.headline(report)


def test_nothing_changed_is_not_said_where_no_behaviour_could_be_judged() -> None:
    """Of a list that ships too: every subject unaffected, and of the manner of answers nothing known."""
    subjects = [one for one in QUIET if one.kind == "capability"]
    manner = AbsentArea(area="harmful advice", kind="behaviour", reason="no passage matches it", passages=0)
    assert headline_verdict(subjects, ABSENT, None, named=False)[0] == "no material change"
    verdict, reason = headline_verdict(subjects, [*ABSENT, manner], None, named=False)
    assert verdict == "inconclusive"
    assert reason == "No area that has text is affected, but nothing can be said of any behaviour."
    judged = [*subjects, *(one for one in QUIET if one.kind == "behaviour")]
    assert len(judged) > len(subjects)
    assert headline_verdict(judged, [*ABSENT, manner], None, named=False)[0] == "no material change"
