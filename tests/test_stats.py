"""Statistics, against hand-computed numbers, scipy and laws."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mneme.errors import EmptyMask
from mneme.results import Estimate
from mneme.stats import (
    balanced_accuracy,
    benjamini_hochberg,
    bootstrap_weights,
    holm,
    mcnemar_exact,
    normal_cdf,
    ratio_of_sums,
    standard_error,
    student_t_cdf,
    student_t_quantile,
)

p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=30).map(lambda values: np.array(values))


def test_bootstrap_weights_resample_all_clusters() -> None:
    weights = bootstrap_weights(7, 2000, seed=1)
    assert weights.shape == (2000, 7)
    assert np.all(weights.sum(axis=1) == 7)
    assert np.array_equal(weights, np.round(weights))
    # Each cluster is drawn once on average; the mean of 2,000 draws of variance 6/7 has standard error 0.021.
    assert np.abs(weights.mean(axis=0) - 1).max() < 0.1
    assert np.array_equal(weights, bootstrap_weights(7, 2000, seed=1))
    assert not np.array_equal(weights, bootstrap_weights(7, 2000, seed=2))


def test_bootstrap_of_nothing_says_what_was_expected() -> None:
    with pytest.raises(EmptyMask, match="0 clusters: expected at least 1 passage"):
        bootstrap_weights(0, 10, seed=0)


def test_ratio_of_sums_by_hand() -> None:
    """Three clusters (1 of 2, 3 of 4, 2 of 4): 6/10; residuals -0.2, 0.6, -0.4 over a mean denominator of 10/3.

    Their squares sum to 0.56/(100/9) = 0.0504; / (3 * 2) = 0.0084; root 0.09165; times t(0.975, 2) = 4.30265.
    """
    estimate = ratio_of_sums(np.array([1.0, 3.0, 2.0]), np.array([2.0, 4.0, 4.0]), "share", seed=0)
    half = 4.302652729749464 * math.sqrt(0.0084)
    assert estimate.value == pytest.approx(0.6)
    assert (estimate.low, estimate.high) == (pytest.approx(0.6 - half), pytest.approx(0.6 + half))
    assert (estimate.unit, estimate.n) == ("share", 3)


@pytest.mark.parametrize("n", [5, 29])
def test_ratio_of_sums_with_equal_weights_is_the_t_interval(n: int) -> None:
    values = np.random.default_rng(3).normal(size=n)
    estimate = ratio_of_sums(values, np.ones(n), "nats", seed=0)
    low, high = scipy.stats.t.interval(0.95, n - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((values.mean(), low, high))


def test_ratio_of_sums_leaves_empty_clusters_out() -> None:
    full = ratio_of_sums(np.array([1.0, 3.0, 2.0]), np.array([2.0, 4.0, 4.0]), "share", seed=0)
    padded = ratio_of_sums(np.array([1.0, 0.0, 3.0, 2.0, 0.0]), np.array([2.0, 0.0, 4.0, 4.0, 0.0]), "share", seed=0)
    assert padded == full


def test_ratio_of_sums_of_one_cluster_has_a_whole_unit_to_either_side() -> None:
    estimate = ratio_of_sums(np.array([1.5]), np.array([3.0]), "share", seed=0)
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (0.5, -1.0, 2.0, 1)


def test_ratio_of_sums_over_nothing_is_an_error() -> None:
    with pytest.raises(EmptyMask, match="over no tokens has no value: expected at least one cluster"):
        ratio_of_sums(np.zeros(3), np.zeros(3), "share", seed=0)


def test_ratio_of_sums_from_30_clusters_is_the_percentile_bootstrap() -> None:
    generator = np.random.default_rng(5)
    numerators, denominators = generator.normal(size=40), generator.uniform(1, 3, size=40)
    weights = bootstrap_weights(40, 1000, seed=9)
    low, high = np.quantile((weights @ numerators) / (weights @ denominators), [0.025, 0.975])
    estimate = ratio_of_sums(numerators, denominators, "nats", seed=9)
    assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))
    assert estimate == ratio_of_sums(numerators, denominators, "nats", seed=9)


def test_ratio_of_sums_of_no_change_is_exactly_nothing() -> None:
    for n in (1, 4, 50):
        estimate = ratio_of_sums(np.zeros(n), np.ones(n), "nats", seed=0)
        assert estimate.value == 0.0
        assert n == 1 or (estimate.low, estimate.high) == (0.0, 0.0)


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.1, 10)), min_size=2, max_size=60), st.integers(0, 5))
def test_ratio_of_sums_antisymmetry(pairs: list[tuple[float, float]], seed: int) -> None:
    """Swapping the two models flips the sign of every numerator, and must mirror the estimate with its interval."""
    numerators, denominators = (np.array(column) for column in zip(*pairs, strict=True))
    one = ratio_of_sums(numerators, denominators, "nats", seed=seed, n_resamples=50)
    other = ratio_of_sums(-numerators, denominators, "nats", seed=seed, n_resamples=50)
    assert (other.value, other.low, other.high) == pytest.approx((-one.value, -one.high, -one.low), abs=1e-9)


def coverage(n_clusters: int, n_trials: int) -> float:
    """How often the interval holds the true rate, where tokens of a passage share a passage effect (clustered data).

    Passage i has 5-40 tokens, each right with probability p_i ~ Beta(4, 1): the true rate is 4/5 whatever the lengths.
    """
    generator = np.random.default_rng(n_clusters)
    held = 0
    for trial in range(n_trials):
        tokens = generator.integers(5, 41, size=n_clusters).astype(np.float64)
        right = generator.binomial(tokens.astype(int), generator.beta(4, 1, size=n_clusters)).astype(np.float64)
        estimate = ratio_of_sums(right, tokens, "share", seed=trial, n_resamples=400)
        held += estimate.low <= 0.8 <= estimate.high
    return held / n_trials


@pytest.mark.parametrize("n_clusters", [10, 60])
def test_interval_covers_clustered_data(n_clusters: int) -> None:
    """200 trials at 95 % have a standard error of 1.5 points; Beta(4, 1) is skewed, which costs 10 clusters a few points."""
    assert 0.88 <= coverage(n_clusters, 200) <= 0.995


@pytest.mark.slow
@pytest.mark.parametrize(("n_clusters", "least"), [(10, 0.90), (30, 0.91), (60, 0.92), (200, 0.93)])
def test_interval_covers_clustered_data_closely(n_clusters: int, least: float) -> None:
    assert least <= coverage(n_clusters, 1000) <= 0.975


def test_interval_by_tokens_would_be_too_narrow() -> None:
    """Why clusters: 30 passages of 40 tokens with a passage effect, against the interval of 1,200 independent tokens."""
    generator = np.random.default_rng(0)
    right = generator.binomial(40, generator.beta(0.4, 0.1, size=30)).astype(np.float64)
    estimate = ratio_of_sums(right, np.full(30, 40.0), "share", seed=0)
    naive = 2 * 1.96 * math.sqrt(estimate.value * (1 - estimate.value) / 1200)
    assert estimate.high - estimate.low > 3 * naive


def test_standard_error_undoes_a_normal_interval() -> None:
    estimate = Estimate(value=1.0, low=1.0 - 1.959964 * 0.3, high=1.0 + 1.959964 * 0.3, unit="nats", n=9)
    assert standard_error(estimate) == pytest.approx(0.3)
    assert standard_error(estimate.model_copy(update={"high": estimate.low})) == 0.0


@pytest.mark.parametrize("degrees", [1, 2, 3, 7, 30, 250, 5000])
def test_student_t_against_scipy(degrees: int) -> None:
    for value in (0.0, 0.1, 1.0, 2.5, 12.0, 80.0):
        assert student_t_cdf(value, degrees) == pytest.approx(scipy.stats.t.cdf(value, degrees), abs=1e-10)
    for probability in (0.6, 0.9, 0.975, 0.995, 0.9995):
        expected = scipy.stats.t.ppf(probability, degrees)
        assert student_t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-7)


def test_student_t_by_hand() -> None:
    """One degree of freedom is Cauchy: P(T <= 1) = 3/4; the 97.5 % quantile is tan(0.475 pi) = 12.7062."""
    assert student_t_cdf(1.0, 1) == pytest.approx(0.75)
    assert student_t_quantile(0.975, 1) == pytest.approx(math.tan(0.475 * math.pi))


@given(st.floats(-8, 8))
def test_normal_cdf_against_scipy(value: float) -> None:
    assert normal_cdf(value) == pytest.approx(scipy.stats.norm.cdf(value), rel=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_against_the_exact_binomial(lost: int, gained: int) -> None:
    expected = 1.0 if lost + gained == 0 else scipy.stats.binomtest(lost, lost + gained, 0.5).pvalue
    assert mcnemar_exact(lost, gained) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_exact(lost, gained) == mcnemar_exact(gained, lost)


def test_mcnemar_by_hand() -> None:
    """Five discordant pairs, all lost: 2 * (1/2)^5. Large counts do not overflow."""
    assert mcnemar_exact(5, 0) == pytest.approx(2 / 32)
    assert 0.0 < mcnemar_exact(5000, 4700) < 0.01


def test_holm_by_hand() -> None:
    """0.01 * 4; then 0.02 * 3 = 0.06; 0.03 * 2 = 0.06; 0.04 * 1, raised to the 0.06 before it."""
    assert holm(np.array([0.04, 0.01, 0.03, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])


def test_benjamini_hochberg_by_hand() -> None:
    """0.01 * 4/1 = 0.04, 0.02 * 4/2 = 0.04, 0.03 * 4/3 = 0.04, 0.04 * 4/4 = 0.04."""
    assert benjamini_hochberg(np.array([0.04, 0.01, 0.03, 0.02])) == pytest.approx([0.04] * 4)


@given(p_lists)
def test_benjamini_hochberg_against_scipy(p_values: np.ndarray) -> None:
    assert benjamini_hochberg(p_values) == pytest.approx(scipy.stats.false_discovery_control(p_values), abs=1e-12)


@given(p_lists)
def test_corrections_obey_their_laws(p_values: np.ndarray) -> None:
    """p <= BH <= Holm <= 1; both keep the order of the p-values and do not care in which order these come."""
    strict, mild = holm(p_values), benjamini_hochberg(p_values)
    slack = 1e-12
    assert np.all(p_values <= mild + slack)
    assert np.all(mild <= strict + slack)
    assert np.all(strict <= 1.0)
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(strict[order]) >= 0)
    assert np.all(np.diff(mild[order]) >= 0)
    shuffled = np.random.default_rng(len(p_values)).permutation(len(p_values))
    assert holm(p_values[shuffled]) == pytest.approx(strict[shuffled])
    assert benjamini_hochberg(p_values[shuffled]) == pytest.approx(mild[shuffled])


def test_one_test_and_no_test_need_no_correction() -> None:
    for adjust in (holm, benjamini_hochberg):
        assert adjust(np.array([0.03])) == pytest.approx([0.03])
        assert adjust(np.array([])).shape == (0,)


def test_balanced_accuracy_by_hand() -> None:
    """Of 4 true cases 3 are hit, of 2 false ones 1 is refused: (3/4 + 1/2) / 2."""
    true = np.array([True, True, True, True, False, False])
    said = np.array([True, True, True, False, True, False])
    assert balanced_accuracy(said, true) == pytest.approx(0.625)
    assert balanced_accuracy(np.ones(6, dtype=bool), true) == 0.5


@pytest.mark.parametrize("kind", [True, False])
def test_balanced_accuracy_needs_both_kinds(kind: bool) -> None:
    with pytest.raises(EmptyMask, match="needs both true and false cases"):
        balanced_accuracy(np.array([True, False]), np.array([kind, kind]))
