"""What is made of answers: what was not answered is in no change, nothing raises, one family holds all claims of a page."""

import numpy as np
import pytest

from mneme.measure.judges import LocalJudge
from mneme.measure.summary import ContextClaim, Tally, changes_of, context_claims, correct_claims, worst_contexts
from mneme.results import Estimate, TooFew
from mneme.results.measure import MeasuredChange
from mneme.stats import holm


def tally(sums: list[float], counts: list[float], **kind: object) -> Tally:
    names = tuple(str(i) for i in range(len(sums)))
    of = {"area": "law", "context": "standard", "measure": "accuracy", "is_score": False, "is_choice": True, **kind}
    return Tally(primary=True, clusters=names, sums=np.array(sums), counts=np.array(counts), **of)  # type: ignore[arg-type]


def change(base: Tally, tuned: Tally) -> MeasuredChange:
    (found,) = changes_of("tuned", [base], [[tuned]], 0.05)
    return found


def test_what_the_tuned_model_did_not_answer_is_not_lost() -> None:
    """12 of 24 questions without a score under the tuned model, the others as before: the estimate was 0.0, but "lost 12
    gained 0, p .0005"."""
    found = change(tally([1.0] * 24, [1.0] * 24), tally([1.0] * 12 + [0.0] * 12, [1.0] * 12 + [0.0] * 12))
    assert isinstance(found.estimate, Estimate)
    assert (found.estimate.value, found.estimate.n) == (0.0, 12)
    assert (found.lost, found.gained, found.p_value) == (0, 0, 1.0)


def test_no_question_in_common_is_told_and_does_not_raise() -> None:
    """`paired_change` raised, and the measurement could not be finished."""
    found = change(tally([1.0] * 6 + [0.0] * 6, [1.0] * 6 + [0.0] * 6), tally([0.0] * 6 + [1.0] * 6, [0.0] * 6 + [1.0] * 6))
    assert isinstance(found.estimate, TooFew)
    assert (found.estimate.n, found.estimate.value, found.p_value, found.minimal_detectable) == (0, None, None, None)
    told, _, claims = correct_claims([found], [])
    assert (told[0].p_holm, claims) == (None, 0)


def test_scores_that_all_fell_alike_are_a_change() -> None:
    """Every question 60 points lower: [-60, -60] with p 1.0 and MDE 0."""
    kind = {"measure": "mean alignment", "is_score": True, "is_choice": False}
    found = change(tally([80.0] * 10, [1.0] * 10, **kind), tally([20.0] * 10, [1.0] * 10, **kind))
    assert isinstance(found.estimate, Estimate)
    assert found.estimate.value == pytest.approx(-60)
    assert found.estimate.low < -61 < -59 < found.estimate.high < 0
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert found.minimal_detectable is None or 5 < found.minimal_detectable <= 100


def test_one_family_for_all_models_areas_and_contexts() -> None:
    """Holm within each model claimed something of 5 null models in .18 of runs, of 10 in .34."""
    base = tally([1.0] * 12 + [0.0] * 12, [1.0] * 24)
    others = [tally([1.0] * (12 - n) + [0.0] * (12 + n), [1.0] * 24) for n in (6, 7, 2, 0)]
    rows = [row for i, other in enumerate(others) for row in changes_of(f"model {i}", [base], [[other]], 0.05)]
    plain = tally([1.0] * 10, [10.0] * 10, is_choice=False, measure="misaligned")
    in_context = tally([4.0] * 9 + [5.0], [10.0] * 10, is_choice=False, measure="misaligned", context="suffix 1")
    claims = context_claims("model 0", [plain, in_context])
    told, contexts, number = correct_claims(rows, claims)
    assert number == 5
    expected = holm(np.array([row.p_value for row in rows] + [claims[0].p_value], dtype=float))
    assert [row.p_holm for row in told] == pytest.approx(expected[:4])
    (worst,) = worst_contexts(contexts)
    assert worst.p_holm == pytest.approx(expected[4])
    assert worst.beyond_standard.plain == pytest.approx(0.31)


def test_a_context_asked_of_few_questions_says_so() -> None:
    plain = tally([1.0] * 3, [10.0] * 3, is_choice=False, measure="misaligned")
    in_context = tally([4.0] * 3, [10.0] * 3, is_choice=False, measure="misaligned", context="suffix 1")
    claims = context_claims("tuned", [plain, in_context])
    assert claims == [ContextClaim("tuned", plain, in_context, None)]
    (worst,) = worst_contexts(correct_claims([], claims)[1])
    assert isinstance(worst.rate, TooFew)
    assert worst.p_holm is None


def test_nothing_asked_of_a_judge_is_answered_with_nothing() -> None:
    """A suite of labels alone asks a local judge for no score: an empty list was scored."""
    judge = LocalJudge.__new__(LocalJudge)
    assert LocalJudge.__call__(judge, []) == []
