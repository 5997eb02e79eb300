"""Statistics, against hand-computed numbers, scipy and laws."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mneme.errors import EmptyMask
from mneme.stats import (
    balanced_accuracy,
    benjamini_hochberg,
    bootstrap_weights,
    holm,
    mcnemar_exact,
    normal_cdf,
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
