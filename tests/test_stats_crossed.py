"""Items in two crossed kinds of clusters: one kind alone, repeated items, events that were not seen, identical models."""

import numpy as np
import pytest

from mneme.errors import EmptyMask
from mneme.results import Estimate
from mneme.stats import Rate, TooFew, two_way
from mneme.stats.crossed import both_ways


def rate(found: Rate | TooFew) -> Rate:
    assert isinstance(found, Rate)
    return found


def items(n: int, documents: int, types: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, documents, n), generator.integers(0, types, n)


def test_items_of_their_own_type_are_clustered_one_way() -> None:
    """Every item a type of its own: the variance is that of the documents (V_a + V_b - V_ab with V_b = V_ab, but for
    leverage)."""
    generator = np.random.default_rng(0)
    document = np.repeat(np.arange(20), 10)
    values = generator.normal(size=200) + generator.normal(size=20)[document]
    found = rate(two_way(values, document, np.arange(200), "nats"))
    residuals = (values - values.mean()) / 200
    sums = np.bincount(document, weights=residuals) / np.sqrt(1 - 1 / 20)
    assert found.standard_error == pytest.approx(np.sqrt((sums**2).sum()), rel=0.01)


def test_words_repeated_everywhere_are_not_new_evidence() -> None:
    """Each of 20 word types has one fate in all of 50 documents: the interval is that of 20, not of 1,000 items."""
    fate = np.where(np.arange(20) < 5, -1.0, 0.0)
    first, second = np.repeat(np.arange(50), 20), np.tile(np.arange(20), 50)
    found = rate(two_way(fate[second], first, second, "flips")).estimate
    alone = rate(two_way(fate, np.arange(20), np.arange(20), "flips")).estimate
    assert found.value == alone.value == -0.25
    assert found.high - found.low > 0.8 * (alone.high - alone.low)


def test_only_identical_models_have_no_width() -> None:
    first, second = items(100, 12, 15)
    same = rate(two_way(np.zeros(100), first, second, "flips", identical=True))
    assert same.estimate == Estimate(value=0.0, low=0.0, high=0.0, unit="flips", n=12)
    assert same.p_value == 1.0
    told = rate(two_way(np.where(np.arange(100) < 1, -1.0, 0.0), first, second, "flips", identical=True))
    assert told.estimate.low < told.estimate.high
    assert isinstance(two_way(np.zeros(100), first, second, "flips"), TooFew)


def test_antisymmetry_and_scale() -> None:
    first, second = items(300, 20, 25)
    values = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], 300, p=[0.2, 0.7, 0.1])
    one, other = (rate(two_way(sign * values, first, second, "flips")) for sign in (1, -1))
    assert (other.estimate.low, other.estimate.high) == pytest.approx((-one.estimate.high, -one.estimate.low))
    assert other.p_value == pytest.approx(one.p_value)
    tenfold = rate(two_way(10 * values, first, second, "points"))
    assert tenfold.estimate.low == pytest.approx(10 * one.estimate.low)


def test_p_and_interval_agree() -> None:
    first, second = items(200, 15, 15)
    generator = np.random.default_rng(2)
    for loss in (0.05, 0.1, 0.15, 0.2, 0.3):
        values = generator.choice([-1.0, 0.0, 1.0], 200, p=[loss, 0.95 - loss, 0.05])
        found = rate(two_way(values, first, second, "flips"))
        assert found.p_value is not None
        assert (found.estimate.high < 0 or found.estimate.low > 0) == (found.p_value < 0.05)


def test_too_few_of_either_kind() -> None:
    few = two_way(np.arange(100.0), *items(100, 12, 6), "nats")
    assert isinstance(few, TooFew)
    assert (few.n, few.needed) == (6, 8)
    assert isinstance(two_way(np.ones(100), *items(100, 12, 12), "nats"), TooFew)  # no spread
    with pytest.raises(EmptyMask, match="over no items"):
        two_way(np.zeros(0), np.zeros(0, dtype=int), np.zeros(0, dtype=int), "flips")


def test_unequal_weights_do_not_claim_more() -> None:
    """Twenty numbers of mean 0 with lognormal weights: leverage by number and not by weight claimed .10 of them."""
    rng, each = np.random.default_rng(4), np.arange(20)
    p_values = [
        rate(two_way(rng.normal(size=20), each, each, "nats", weights=np.exp(rng.normal(size=20)))).p_value for _ in range(600)
    ]
    assert np.mean([p is not None and p <= 0.05 for p in p_values]) <= 0.07
    values = rng.normal(size=20)
    assert two_way(values, each, each, "nats", weights=np.full(20, 7.0)) == two_way(values, each, each, "nats")


def test_variances_of_both_kinds_by_hand() -> None:
    """Their sum less what they share; not below what the cells alone say, and not lifted to the larger of the two. Degrees:
    1 / sqrt(d) is the mean of 1/2 and 1/4."""
    one, two, cells = np.array([1.0, 1.2, 1.0]), np.array([1.0, 0.7, 1.0]), np.array([0.9, 1.0, 1.0])
    whole, degrees = both_ways(one, two, cells, np.array([4.0, 9.0, 9.0]), np.array([16.0, 9.0, 9.0]))
    assert whole.tolist() == pytest.approx([1.1, 1.0, 1.0])
    assert degrees.tolist() == pytest.approx([(3 / 8) ** -2, 9.0, 9.0])
