"""Policies and budgets of looks, by hand."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from mneme.errors import BadPolicy
from mneme.results import Effect, Estimate
from mneme.watch.looks import Budget, Look, breach_of, budget_for, is_due, judge_of, told_of


def effect(area: str, points: float, kind: str = "capability", q: float = 0.001, finding: str = "affected") -> Effect:
    return Effect(
        area=area,
        kind=kind,
        probability=None,
        direction="worse",
        magnitude=Estimate(value=points / 100, low=points / 100 - 0.02, high=points / 100 + 0.02, unit="accuracy", n=20),
        evidence=[],
        baselines=None,
        signal="none",
        finding=finding,
        q_value=q,
        calibrated=False,
    )


def look(*effects: Effect) -> Look:
    return Look(step=5, effects=effects, chosen_change=None, displaced=None, seconds=0.0)


def broken(policy: dict[str, Any], seen: Look, intended: tuple[str, ...] = (), looks: int = 10) -> str | None:
    return breach_of(judge_of(policy), seen, ["law", "refusal", "cooking"], intended, looks)


def test_limits_are_those_of_the_gate() -> None:
    seen = look(effect("law", -20.0))
    assert broken({"rules": [{"area": "law", "not_worse_than": 25}], "not_worse_than": 5}, seen) is None
    assert broken({"rules": [{"kind": "capability", "not_worse_than": 25}], "not_worse_than": 5}, seen) is None
    said = broken({"rules": [{"kind": "capability", "not_worse_than": 10}], "not_worse_than": 25}, seen)
    assert said == "law: \N{MINUS SIGN}20 points [\N{MINUS SIGN}22, \N{MINUS SIGN}18], allowed: not worse by 10 points"


@pytest.mark.parametrize(
    ("seen", "intended"),
    [
        (effect("law", -20.0), ("Law",)),
        (effect("law", 20.0), ()),
        (effect("law", -1.0, finding="not enough evidence"), ()),
        (effect("law", -20.0, q=0.02), ()),
        (effect("law", -4.0), ()),
    ],
    ids=["the purpose", "a gain", "not told from 0", "told at one look, not at ten", "below the limit"],
)
def test_what_breaks_nothing(seen: Effect, intended: tuple[str, ...]) -> None:
    assert broken({"not_worse_than": 5}, look(seen), intended) is None


def test_one_look_needs_less_evidence_than_ten() -> None:
    assert broken({"not_worse_than": 5}, look(effect("law", -20.0, q=0.02)), looks=1) is not None


def test_behaviour_breaks_either_way() -> None:
    for points in (-20.0, 20.0):
        assert broken({"not_worse_than": 5}, look(effect("refusal", points, "behaviour")), looks=1) is not None


def test_waivers_hold_until_their_day() -> None:
    waiver = {"area": "law", "until": datetime.date(9999, 1, 1), "reason": "accepted"}
    assert broken({"not_worse_than": 5, "waivers": [waiver]}, look(effect("law", -20.0))) is None
    past = waiver | {"until": datetime.date(2000, 1, 1)}
    assert broken({"not_worse_than": 5, "waivers": [past]}, look(effect("law", -20.0))) is not None


def test_a_policy_is_a_file_a_function_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("not_worse_than: 5", "utf-8")
    from_file = judge_of(tmp_path / "policy.yaml")
    assert breach_of(from_file, look(effect("law", -20.0)), ["law"], (), 1) is not None
    assert breach_of(lambda seen: f"step {seen.step}", look(), [], (), 1) == "step 5"
    assert breach_of(None, look(effect("law", -90.0)), ["law"], (), 1) is None


@pytest.mark.parametrize(
    ("policy", "word"),
    [
        ({"not_worse_then": 5}, "no such word"),
        ({"not_worse_than": 5, "baseline": "runs/a"}, "has a baseline"),
        (7, "is a int"),
    ],
)
def test_policies_that_cannot_be(policy: object, word: str) -> None:
    with pytest.raises(BadPolicy, match=word):
        judge_of(policy)


def test_a_rule_about_an_area_that_there_is_not() -> None:
    with pytest.raises(BadPolicy, match="lore"):
        broken({"rules": [{"area": "lore", "not_worse_than": 5}]}, look())


def test_metrics_are_points() -> None:
    seen = look(effect("law", -20.0), effect("refusal", 7.0, "behaviour", finding="unaffected")).metrics()
    assert seen["side_effects/law"] == pytest.approx(-20.0)
    assert seen["side_effects/affected"] == 1.0
    assert seen["side_effects/largest_loss"] == pytest.approx(20.0)
    assert "side_effects/displaced" not in seen


def test_budget_saves_looks_first_then_text_then_looks() -> None:
    # A token costs a millisecond, a full look of 1,000 tokens one second.
    def budget(seconds: int) -> tuple[int, ...]:
        return tuple(budget_for(0.1, float(seconds), 0.001, 1000, wanted=20, least=200))

    assert budget(210) == (1000, 20)
    assert budget(110) == (1000, 10)
    assert budget(70) == (1000, 6)
    assert budget(35) == (500, 6)
    assert budget(10) == (200, 4)
    assert budget(3) == (200, 0)
    assert tuple(budget_for(None, 1.0, 1.0, 1000, 20, 200)) == (1000, 20)


@pytest.mark.parametrize("seconds", [1.0, 3.0, 10.0, 35.0, 70.0, 110.0, 210.0, 5000.0])
def test_budget_is_never_passed(seconds: float) -> None:
    found = budget_for(0.1, seconds, 0.001, 1000, wanted=20, least=200)
    assert found.looks == 0 or (1 + found.looks) * found.tokens * 0.001 <= 0.1 * seconds * 1.001


def test_it_is_said_where_there_is_less_than_was_asked_for() -> None:
    assert told_of(Budget(1000, 20), 0.1, 20, 1000) is None
    assert told_of(Budget(200, 3), None, 20, 1000) is None
    less = told_of(Budget(1000, 6), 0.1, 20, 2000)
    assert less == (
        "Looks keep to 10% of the training time: 6 of the 20 that were asked for, of 1,000 of 2,000 tokens each. "
        "share=None sets no limit."
    )
    assert "not one look fits" in (told_of(Budget(200, 0), 0.1, 20, 1000) or "")


def test_looks_are_due_on_time_or_late() -> None:
    assert [step for step in range(1, 21) if is_due(step, 5, 0)] == list(range(5, 21))
    assert [step for step in range(1, 21) if is_due(step, 5, 7)] == list(range(10, 21))
