"""Policies and budgets of looks, by hand."""

import pytest

from mneme.errors import BadOption
from mneme.results import Effect, Estimate
from mneme.watch.looks import Look, breach_of, budget_for, checked_policy, is_due


def effect(area: str, points: float, kind: str = "capability", q: float = 0.001, finding: str = "affected") -> Effect:
    return Effect(
        area=area,
        kind=kind,
        probability=None,
        direction="worse",
        magnitude=Estimate(value=points / 100, low=points / 100 - 0.02, high=points / 100 + 0.02, unit="x", n=20),
        evidence=[],
        baselines=None,
        signal="none",
        finding=finding,
        q_value=q,
        calibrated=False,
    )


def look(*effects: Effect) -> Look:
    return Look(step=5, effects=effects, chosen_change=None, displaced=None, seconds=0.0)


def test_limit_of_an_area_goes_before_its_kind_and_that_before_all() -> None:
    seen = look(effect("law", -20.0))
    assert breach_of({"law": 25, "capability": 10, "*": 5}, seen, (), 10) is None
    assert breach_of({"capability": 25, "*": 5}, seen, (), 10) is None
    said = breach_of({"capability": 10, "*": 25}, seen, (), 10)
    assert said == "law changed by -20 points [-22, -18], the limit is 10"


@pytest.mark.parametrize(
    ("seen", "intended"),
    [
        (effect("law", -20.0), ("Law",)),
        (effect("law", 20.0), ()),
        (effect("law", -20.0, finding="not enough evidence"), ()),
        (effect("law", -20.0, q=0.02), ()),
        (effect("law", -4.0), ()),
    ],
    ids=["the purpose", "a gain", "not told", "told at one look, not at ten", "below the limit"],
)
def test_what_breaks_nothing(seen: Effect, intended: tuple[str, ...]) -> None:
    assert breach_of({"*": 5}, look(seen), intended, 10) is None


def test_one_look_needs_less_evidence_than_ten() -> None:
    assert breach_of({"*": 5}, look(effect("law", -20.0, q=0.02)), (), 1) is not None


def test_behaviour_breaks_either_way() -> None:
    for points in (-20.0, 20.0):
        assert breach_of({"behaviour": 5}, look(effect("refusal", points, "behaviour")), (), 1) is not None


def test_a_function_is_a_policy() -> None:
    assert breach_of(lambda seen: f"step {seen.step}", look(), (), 1) == "step 5"
    assert breach_of(None, look(effect("law", -90.0)), (), 1) is None


@pytest.mark.parametrize(
    ("policy", "word"), [({"lore": 5}, "no area"), ({"law": 0}, "more than 0"), ({"*": 101}, "at most 100")]
)
def test_policies_that_cannot_be(policy: dict[str, int], word: str) -> None:
    with pytest.raises(BadOption, match=word):
        checked_policy(policy, ["law"])


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


def test_looks_are_due_on_time_or_late() -> None:
    assert [step for step in range(1, 21) if is_due(step, 5, 0)] == list(range(5, 21))
    assert [step for step in range(1, 21) if is_due(step, 5, 7)] == list(range(10, 21))
