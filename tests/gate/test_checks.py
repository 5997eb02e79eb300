"""Limits held against numbers whose answer is known by hand: pass, fail, not enough evidence, waived, against a baseline."""

import datetime

import pytest

from mneme.errors import BadPolicy
from mneme.gate.areas import difference, gated_run
from mneme.gate.checks import checked, waived, whole_of
from mneme.gate.policy import Policy, Rule, Waiver, threshold_policy
from mneme.gate.run import gate_of
from mneme.results import AbsentArea, Report
from mneme.results.gate import GateCheck
from tests.report.measured import sample_measurement
from tests.report.sample import effect, estimate, sample_report

DAY = datetime.date(2026, 11, 28)


def area(low: float, value: float, high: float, **more: object) -> Report:
    """A report of one area with this change in fractions, and what it said of it."""
    fields = {"finding": "unaffected", "q_value": 0.001, "power": 0.03, "probability": 0.1} | more
    one = effect("law", 0.1, value, magnitude=estimate(value, low, high)).model_copy(update=fields)
    return sample_report(effects=[one], absent=[], verdict="change")


def only(policy: Policy, report: Report) -> GateCheck:
    """The one check of a policy on a report."""
    [check] = checked(policy, gated_run(report))
    return check


@pytest.mark.parametrize(
    ("low", "value", "high", "more", "outcome"),
    [
        (-0.049, -0.02, 0.01, {}, "pass"),
        (-0.05, -0.02, 0.01, {}, "not enough evidence"),  # the bound itself is not ruled out
        (-0.09, -0.07, -0.05, {}, "fail"),
        (-0.08, -0.05, -0.02, {}, "fail"),
        (-0.12, -0.05, 0.02, {}, "not enough evidence"),  # worse by as much, and not told from 0
        (-0.09, -0.07, -0.05, {"q_value": 0.2}, "not enough evidence"),  # one of many claims, by chance
        (-0.07, -0.04, -0.01, {}, "not enough evidence"),  # told from 0, and less than the margin
        (0.2, 0.3, 0.4, {}, "pass"),  # better
        (0.2, 0.3, 0.4, {"kind": "behaviour"}, "fail"),  # a behaviour may go neither way
        (-0.04, 0.0, 0.04, {"kind": "behaviour"}, "pass"),
    ],
)
def test_the_default_question_is_non_inferiority(
    low: float, value: float, high: float, more: dict[str, object], outcome: str
) -> None:
    check = only(Policy(), area(low, value, high, **more))
    assert (check.limit, check.outcome) == ("not_worse_than", outcome)
    assert check.allowed == "not worse by 5 points"


@pytest.mark.parametrize(
    ("rule", "more", "outcome"),
    [
        ({"size": 10}, {}, "pass"),
        ({"size": 2}, {}, "fail"),
        ({"probability": 0.5}, {}, "pass"),
        ({"probability": 0.1}, {}, "fail"),
        ({"probability": 0.5}, {"finding": "not enough evidence"}, "not enough evidence"),
        ({"probability": 0.5}, {"probability": None}, "pass"),
        ({"probability": 0.5}, {"probability": None, "finding": "affected"}, "fail"),
        ({"verdict": "unaffected"}, {}, "pass"),
        ({"verdict": "unaffected"}, {"finding": "affected"}, "fail"),
        ({"verdict": "unaffected"}, {"finding": "not enough evidence"}, "not enough evidence"),
        ({"verdict": ["unaffected", "not enough evidence"]}, {"finding": "not enough evidence"}, "pass"),
        ({"power": 3}, {}, "pass"),
        ({"power": 2.9}, {}, "not enough evidence"),
        ({"power": 50}, {"power": None}, "not enough evidence"),
    ],
)
def test_every_limit(rule: dict[str, object], more: dict[str, object], outcome: str) -> None:
    policy = Policy.model_validate({"not_worse_than": None, "rules": [{"everything": True, **rule}]})
    check = only(policy, area(-0.05, -0.03, -0.01, **more))
    assert (check.limit, check.outcome) == (next(iter(rule)), outcome)


def test_the_rule_that_says_more_of_an_area_holds() -> None:
    policy = Policy(rules=(Rule(everything=True, size=50), Rule(kind="capability", size=20), Rule(area="Law", size=1)))
    assert policy.limits_on("law", "capability") == [("not_worse_than", 5.0), ("size", 1.0)]
    assert policy.limits_on("art", "capability") == [("not_worse_than", 5.0), ("size", 20.0)]
    assert policy.limits_on("art", "behaviour") == [("not_worse_than", 5.0), ("size", 50.0)]


def test_the_purpose_is_held_against_nothing_unless_a_rule_names_it() -> None:
    report = area(-0.9, -0.8, -0.7, intended=True)
    assert checked(Policy(), gated_run(report)) == []
    assert only(Policy(rules=(Rule(area="law", not_worse_than=10),)), report).outcome == "fail"


def test_an_area_without_text_counts_where_a_rule_names_it() -> None:
    gone = [AbsentArea(area="art", kind="capability", reason="no passage of the text matches it", passages=0)]
    report = area(-0.01, 0.0, 0.01).model_copy(update={"absent": gone})
    assert [check.outcome for check in checked(Policy(), gated_run(report))] == ["pass"]
    named = checked(Policy(rules=(Rule(area="art", size=5),)), gated_run(report))
    assert [(check.area, check.outcome) for check in named] == [("law", "pass"), ("art", "not enough evidence")]


def test_what_happened_to_everything_is_asked_too() -> None:
    report = area(-0.04, -0.01, 0.02).model_copy(update={"broad": estimate(-0.09, -0.11, -0.07)})
    outcomes = {check.area: check.outcome for check in checked(Policy(), gated_run(report))}
    assert outcomes == {"law": "pass", "all areas together": "fail"}
    broken = report.model_copy(update={"reason": "Broken as a whole: the text became less likely.", "broad": None})
    assert whole_of(checked(threshold_policy(0.5), gated_run(broken))) == "fail"


def test_a_run_that_settles_nothing_does_not_pass() -> None:
    report = sample_report(effects=[], absent=[], verdict="inconclusive")
    [check] = checked(threshold_policy(0.5), gated_run(report))
    assert (check.area, check.outcome) == ("every area", "not enough evidence")


def test_waivers_cover_until_their_last_day() -> None:
    checks = checked(Policy(), gated_run(area(-0.9, -0.8, -0.7)))
    waiver = Waiver(area="LAW", until=DAY, reason="accepted in review 12")
    told, notes = waived(checks, (waiver,), DAY)
    assert [check.outcome for check in told] == ["waived"]
    assert told[0].reason.endswith("Waived until 2026-11-28: accepted in review 12.")
    assert notes == []
    assert whole_of(told) == "pass"
    told, notes = waived(checks, (waiver,), DAY + datetime.timedelta(days=1))
    assert [check.outcome for check in told] == ["fail"]
    assert notes == ["The waiver of LAW expired on 2026-11-28, and what it covered counts again."]
    other = waiver.model_copy(update={"limit": "size"})
    assert waived(checks, (other,), DAY)[1] == ["The waiver of LAW covers nothing: remove it."]


def test_the_difference_of_two_independent_changes() -> None:
    """By hand: 3 [1, 6] minus -1 [-5, 1] is 4 [4 - sqrt(4 + 4), 4 + sqrt(9 + 16)]."""
    found = difference(estimate(3, 1, 6, "points", 9), estimate(-1, -5, 1, "points", 7))
    assert (found.value, found.n) == (4.0, 7)
    assert found.low == pytest.approx(4 - 8**0.5)
    assert found.high == pytest.approx(9.0)


def test_against_an_approved_run_the_change_since_it_counts() -> None:
    """20 points lost, as in the approved run: not worse than that; 30 are."""
    approved, same, worse = area(-0.21, -0.2, -0.19), area(-0.21, -0.2, -0.19), area(-0.31, -0.3, -0.29)
    assert gate_of(same, Policy(), approved=approved, day=DAY).outcome == "pass"
    result = gate_of(worse, Policy(), approved=approved, day=DAY)
    assert (result.outcome, result.checks[0].found.value) == ("fail", pytest.approx(-10.0))
    assert result.checks[0].allowed == "not worse than the approved run by 5 points"
    other = approved.model_copy(update={"effects": [effect("art", 0.1, 0.0)]})
    assert gate_of(same, Policy(), approved=other, day=DAY).outcome == "not enough evidence"


def test_a_baseline_of_another_base_or_command_is_refused() -> None:
    report = area(-0.01, 0.0, 0.01)
    other = report.model_copy(update={"pair": report.pair.model_copy(update={"width": 256})})
    with pytest.raises(BadPolicy, match="another base"):
        gate_of(report, Policy(), approved=other)
    with pytest.raises(BadPolicy, match="another command"):
        gate_of(report, Policy(), approved=sample_measurement())
    text = report.model_copy(update={"corpus": report.corpus.model_copy(update={"sha256": "00"})})
    assert "read other text" in gate_of(report, Policy(), approved=text, day=DAY).notes[0]


def test_a_measurement_is_judged_by_its_primary_changes() -> None:
    found = sample_measurement()
    checks = checked(Policy(), gated_run(found))
    primary = [change for change in found.changes if change.primary]
    assert len(checks) == len(primary) > 0
    assert {check.kind for check in checks} == {"measured"}
    with pytest.raises(BadPolicy, match="`probability`, which this run does not have"):
        checked(threshold_policy(0.5), gated_run(found))
    with pytest.raises(BadPolicy, match="one model alone"):
        gated_run(found.model_copy(update={"changes": []}))
