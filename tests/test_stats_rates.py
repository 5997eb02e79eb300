"""Rates over clusters: by hand, against exact bounds, by law, and by simulated coverage."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mneme.errors import EmptyMask
from mneme.stats import Rate, TooFew, clustered_mean, clustered_rate, equivalent, paired_change, paired_mean_change

tables = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=5, max_size=30)


def rate(found: Rate | TooFew) -> Rate:
    assert isinstance(found, Rate)
    return found


def arrays(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(hits of one model, hits of another, counts) of at most 10 answers a question."""
    one, two = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return one, two, np.full(len(rows), 10.0)


def test_rate_by_hand() -> None:
    """Six questions of 4 answers, 1 1 1 3 3 3 hits: rate 1/2, residuals -+1/24, each over sqrt(1 - 1/6).

    Variance 6/576 * 6/5 = 1/80, so 20 effective answers; t with 5 degrees of freedom (even sizes, even squares); logit
    interval at 1/2 on 20 + 1 answers: +- t / sqrt(21 / 4)."""
    found = rate(clustered_rate(np.array([1.0, 1, 1, 3, 3, 3]), np.full(6, 4.0)))
    half = scipy.stats.t.ppf(0.975, 5) / math.sqrt(21 / 4)
    assert found.estimate.value == 0.5
    assert found.estimate.high == pytest.approx(1 / (1 + math.exp(-half)))
    assert found.estimate.low == pytest.approx(1 - found.estimate.high)
    assert (found.estimate.n, found.answers, found.degrees) == (6, 24, pytest.approx(5.0))


def test_too_few_questions_are_said_to_be_too_few() -> None:
    few = clustered_rate(np.array([25.0, 1.0]), np.array([50.0, 4.0]))
    assert few == TooFew(value=26 / 54, unit="rate", n=2, needed=5, of="questions")
    assert isinstance(few, TooFew)
    assert few.told() == "too few (2 questions, 5 needed)"
    seeds = paired_change(np.ones(9), np.full(9, 4.0), np.ones((2, 9)), np.full((2, 9), 4.0))
    assert isinstance(seeds, TooFew)
    assert (seeds.n, seeds.needed, seeds.of) == (2, 3, "training seeds")
    assert not equivalent(np.ones(2), np.ones(2), np.ones(2), np.ones(2), 0.9)


@pytest.mark.parametrize("questions", [5, 40, 300])
def test_a_rate_of_nothing_has_the_exact_binomial_bound(questions: int) -> None:
    """One answer each, none hits: 1 - 0.025^(1/n), Clopper and Pearson's."""
    found = rate(clustered_rate(np.zeros(questions), np.ones(questions))).estimate
    exact = scipy.stats.binomtest(0, questions).proportion_ci(0.95, method="exact").high
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(exact, rel=1e-6)
    all_hit = rate(clustered_rate(np.ones(questions), np.ones(questions))).estimate
    assert (all_hit.low, all_hit.high) == (pytest.approx(1 - exact), 1.0)


def test_answers_to_one_question_are_not_independent() -> None:
    """24 questions of 50 answers, all or nothing each: as wide as 24 answers, not as 1,200."""
    hits = np.array([50.0, 0.0] * 12)
    found = rate(clustered_rate(hits, np.full(24, 50.0))).estimate
    independent = scipy.stats.binomtest(12, 24).proportion_ci(0.95, method="wilson")
    assert found.high - found.low == pytest.approx(independent.high - independent.low, rel=0.15)


def test_no_answer_is_an_error() -> None:
    with pytest.raises(EmptyMask, match="A rate over no answers has no value: expected at least one question"):
        clustered_rate(np.zeros(3), np.zeros(3))
    with pytest.raises(EmptyMask, match="at least one question that both models answered"):
        paired_change(np.ones(2), np.array([1.0, 0.0]), np.ones(2), np.array([0.0, 1.0]))
    with pytest.raises(EmptyMask, match="A mean over no answers has no value"):
        clustered_mean(np.zeros(3), np.zeros(3))


@given(tables)
def test_equal_answers_are_no_change(rows: list[tuple[int, int]]) -> None:
    """Identity: value 0, p 1, and an interval that still says how many answers stand behind it."""
    one, _, counts = arrays(rows)
    found = rate(paired_change(one, counts, one, counts))
    assert found.estimate.value == 0.0
    assert found.p_value == 1.0
    assert found.estimate.low == -found.estimate.high < 0


@given(tables)
def test_antisymmetry(rows: list[tuple[int, int]]) -> None:
    one, two, counts = arrays(rows)
    forward, back = rate(paired_change(one, counts, two, counts)), rate(paired_change(two, counts, one, counts))
    assert back.estimate.value == pytest.approx(-forward.estimate.value)
    assert (back.estimate.low, back.estimate.high) == pytest.approx((-forward.estimate.high, -forward.estimate.low), abs=1e-9)
    assert back.p_value == pytest.approx(forward.p_value, abs=1e-9)


@given(tables)
def test_p_and_interval_agree(rows: list[tuple[int, int]]) -> None:
    one, two, counts = arrays(rows)
    found = rate(paired_change(one, counts, two, counts))
    excluded = found.estimate.low > 0 or found.estimate.high < 0
    assert found.p_value is not None
    assert excluded == (found.p_value < 0.05) or found.p_value == pytest.approx(0.05, abs=1e-4)


def test_pairing_makes_the_change_sharper() -> None:
    """Questions differ much, the change is the same in each: paired, far narrower than either rate."""
    base = np.array([0.0, 2.0, 4.0, 6.0, 8.0, 1.0, 3.0, 5.0, 7.0, 9.0] * 2)
    counts = np.full(20, 20.0)
    change = rate(paired_change(base, counts, base + 4 + np.array([0.0, 1.0] * 10), counts)).estimate
    alone = rate(clustered_rate(base, counts)).estimate
    assert change.high - change.low < 0.5 * (alone.high - alone.low)
    assert change.low > 0.1


def test_only_questions_that_both_answered_count() -> None:
    base, counts = np.array([1.0, 2, 1, 0, 3, 9]), np.array([4.0, 4, 4, 4, 4, 9])
    tuned = np.array([2.0, 3, 1, 1, 3, 0])
    with_sixth = rate(paired_change(base, counts, tuned, np.array([4.0, 4, 4, 4, 4, 0])))
    without = rate(paired_change(base[:5], counts[:5], tuned[:5], np.full(5, 4.0)))
    assert with_sixth.estimate == without.estimate


def test_training_seeds_widen_the_interval() -> None:
    """Three seeds that differ much on the same questions: wider than one seed's questions alone say."""
    rng = np.random.default_rng(0)
    counts = np.full((3, 30), 20.0)
    hits = np.stack([rng.binomial(20, chance, 30) for chance in (0.1, 0.3, 0.5)]).astype(float)
    base = rng.binomial(20, 0.1, 30).astype(float)
    seeds = rate(paired_change(base, counts[0], hits, counts))
    pooled = rate(paired_change(base, counts[0], hits.mean(0), counts[0].copy()))
    assert seeds.estimate.value == pytest.approx(pooled.estimate.value)
    assert seeds.degrees < 4
    assert seeds.estimate.high - seeds.estimate.low > 3 * (pooled.estimate.high - pooled.estimate.low)


def test_one_seed_given_as_a_row_is_one_model() -> None:
    one, two, counts = arrays([(1, 3), (2, 2), (5, 9)])
    assert paired_change(one, counts, two[None], counts[None]) == paired_change(one, counts, two, counts)


def test_equivalence_needs_the_whole_interval_inside() -> None:
    base, counts = np.full(200, 5.0), np.full(200, 10.0)
    noise = np.tile([0.0, 1.0, -1.0, 0.0], 50)
    assert equivalent(base, counts, base + noise, counts, 0.05)
    assert not equivalent(base, counts, base + noise, counts, 0.001)
    assert not equivalent(base, counts, base + noise + 1, counts, 0.05)
    assert not equivalent(base[:4], counts[:4], base[:4] + noise[:4], counts[:4], 0.05)  # too little to say so


def test_skewed_sizes_leave_fewer_degrees_of_freedom() -> None:
    even = rate(clustered_rate(np.full(10, 4.0) + np.arange(10) % 2, np.full(10, 20.0)))
    sizes = np.array([100.0, 40, 20, 10, 10, 5, 5, 4, 3, 3])
    skewed = rate(clustered_rate(np.round(0.2 * sizes) + np.arange(10) % 2, sizes))
    assert even.degrees == pytest.approx(9.0)
    assert skewed.degrees < 6


def test_mean_scores_are_within_their_scale_and_close_to_the_t_interval() -> None:
    values = np.random.default_rng(2).normal(50, 5, 12)
    found = rate(clustered_mean(50 * values, np.full(12, 50.0), bounds=(0.0, 100.0)))
    low, high = scipy.stats.t.interval(0.95, 11, loc=values.mean(), scale=scipy.stats.sem(values))
    # The data say a little less than the 11 degrees of freedom of normal numbers; the logit is straight in the middle.
    assert (found.estimate.low, found.estimate.high) == pytest.approx((low, high), abs=0.4)
    edge = rate(clustered_mean(np.array([0.0] * 11 + [3.0]), np.ones(12), bounds=(0.0, 100.0)))
    assert 0.0 <= edge.estimate.low < edge.estimate.high < 100.0


def test_scores_that_are_all_alike_still_have_a_width() -> None:
    """Ten questions of score 0 each had [0, 0]; every question 60 points lower had [-60, -60], p 1.0 and MDE 0."""
    zero = rate(clustered_mean(np.zeros(10), np.ones(10), bounds=(0.0, 100.0)))
    assert zero.estimate.low == 0.0
    assert zero.estimate.high > 15
    ones = np.ones(10)
    change = rate(paired_mean_change(80 * ones, ones, 20 * ones, ones, bounds=(0.0, 100.0)))
    assert change.estimate.value == pytest.approx(-60)
    assert change.estimate.high - change.estimate.low > 5
    assert change.p_value is not None
    assert 0.0 < change.p_value < 0.05


def test_coverage_of_rare_and_usual_rates() -> None:
    """The full simulation is benchmarks/coverage.py; here 300 runs of a usual and a rare case."""
    rng = np.random.default_rng(3)
    for chance, least in ((0.3, 0.92), (0.03, 0.90)):
        held = 0
        for _ in range(300):
            own = rng.beta(chance * 8, (1 - chance) * 8, 24)
            found = rate(clustered_rate(rng.binomial(10, own).astype(float), np.full(24, 10.0))).estimate
            held += found.low <= chance <= found.high
        assert least <= held / 300 <= 0.99
