"""Means of bounded changes: what was not seen, what fades as losses are seen, and the laws; and the loss that is found."""

import math

import numpy as np
import pytest
from jaxtyping import Float
from scipy import special
from scipy import stats as published

from mneme.stats import Conditions, Rate, Sample, TooFew, bounded_change, detectable_loss, item_noise, two_way
from mneme.stats import loss as losses
from mneme.stats.bounded import independent_items, score_bounds
from mneme.stats.crossed import kinds_of


def test_independent_items_by_hand() -> None:
    each, ones = np.arange(50), np.ones(50)
    assert independent_items(ones, kinds_of(each, each, ones)) == pytest.approx(50)
    # Two items in each of 25 documents: an effect of 1 + 0.1 * (2 - 1).
    assert independent_items(ones, kinds_of(each // 2, each, ones)) == pytest.approx(50 / 1.1)


def test_bounds_where_nothing_was_seen_are_those_of_none_in_n() -> None:
    assert score_bounds(0.0, 0.0, 0.0, 2.0, 50.0) == pytest.approx((0.0, 1 - 0.025 ** (1 / 50)))


@pytest.mark.parametrize("hits", [200, 1000])
def test_bounds_where_much_was_seen_are_wilsons(hits: int) -> None:
    n, p = 2000.0, hits / 2000
    wilson = published.binomtest(hits, 2000).proportion_ci(0.95, method="wilson")
    assert score_bounds(p, p, p * (1 - p) / n, 1.959964, n) == pytest.approx((wilson.low, wilson.high), abs=1e-3)


def test_few_losses_reach_further_than_students_interval() -> None:
    change = np.r_[np.full(4, -0.8), np.full(46, 1e-4)]
    each = np.arange(50)
    found = bounded_change(change, each, each, "")
    assert isinstance(found, Rate)
    flat = two_way(change, each, each, "")
    assert isinstance(flat, Rate)
    assert found.estimate.low < flat.estimate.low - 0.02
    assert found.estimate.high > flat.estimate.high + 0.02
    assert found.p_value == pytest.approx(flat.p_value)
    back = bounded_change(-change, each, each, "")
    assert isinstance(back, Rate)
    assert (back.estimate.low, back.estimate.high) == pytest.approx((-found.estimate.high, -found.estimate.low))


def test_equal_models_have_no_width_and_few_clusters_no_interval() -> None:
    each = np.arange(9)
    same = bounded_change(np.zeros(9), each, each, "", identical=True)
    assert isinstance(same, Rate)
    assert (same.estimate.low, same.estimate.high, same.p_value) == (0.0, 0.0, 1.0)
    other = bounded_change(np.zeros(9), each, each, "")
    assert isinstance(other, Rate)
    assert other.estimate.high > 0.2
    assert isinstance(bounded_change(np.zeros(7), np.arange(7), np.arange(7), ""), TooFew)


def sample(n: int, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    each = np.arange(n)
    return Sample(values=0.05 * rng.normal(size=n), room=np.full(n, 0.8), weights=np.ones(n), first=each, second=each)


def stated(n: int, verdict: Conditions, *, seed: int = 0, noise: float = 0.0) -> float:
    found = detectable_loss(sample(n, seed), verdict, noise=noise)
    assert found.singly is not None
    assert found.singly == found.whole == found.surely  # every item is a cluster of its own
    return found.singly


def test_the_loss_that_would_have_been_found_is_found_so_often() -> None:
    """Losses of the kind that is meant, put into other samples of the same size and judged by the public test."""
    loss = float(np.median([stated(60, ASKED, seed=seed) for seed in range(5)]))
    rng, each, hits = np.random.default_rng(9), np.arange(60), 0
    for _ in range(400):
        lost = rng.random(60) < loss / 0.4
        change = 0.05 * rng.normal(size=60) - 0.8 * lost * rng.random(60)
        found = two_way(change, each, each, "")
        assert isinstance(found, Rate)
        assert found.p_value is not None
        hits += found.p_value <= 0.05 and found.estimate.value <= -0.05
    assert 0.73 <= hits / 400 <= 0.87


ASKED, STRICT, CARRIED = Conditions(0.05, 0.05, None), Conditions(0.001, 0.05, None), Conditions(0.05, 0.05, 0.05)


def test_stricter_verdicts_take_larger_losses_and_more_text_smaller_ones() -> None:
    usual, strict, carried = (stated(60, verdict) for verdict in (ASKED, STRICT, CARRIED))
    assert usual <= carried < strict
    assert 0.05 < stated(600, ASKED) < usual  # never below the size that the estimate must have


def test_a_quiet_sample_is_not_surer_than_all_of_them() -> None:
    """Variance of the mean times its items: 0.05^2; a noise of four times that takes a larger loss, a smaller one changes
    nothing."""
    assert item_noise(sample(600)) == pytest.approx(0.05**2, rel=0.15)
    assert stated(60, STRICT, noise=0.001**2) == stated(60, STRICT)
    assert stated(60, STRICT, noise=0.3**2) > 1.2 * stated(60, STRICT)


def test_losses_of_whole_words_and_documents_are_harder_to_see() -> None:
    document, word = (index.ravel() for index in np.mgrid[:30, :12])
    values = 0.05 * np.random.default_rng(3).normal(size=360)
    both = Sample(values=values, room=np.full(360, 0.8), weights=np.ones(360), first=document, second=word)
    found = detectable_loss(both, STRICT)
    assert found.singly is not None
    assert found.whole is not None
    assert found.whole > 1.15 * found.singly
    assert found.surely == found.whole


@pytest.mark.parametrize("whole", [False, True])
def test_every_draw_is_judged_as_the_public_test_judges_its_items(whole: bool) -> None:
    """Several items a cell, unequal weights: p of all items, and of those without the word that carries most."""
    rng = np.random.default_rng(5)
    values, room, weights = 0.1 * rng.normal(size=240), rng.uniform(0.1, 0.9, 240), rng.uniform(0.2, 2.0, 240)
    drawn = Sample(values, room, weights, first=rng.integers(0, 25, 240), second=rng.integers(0, 14, 240))
    layout = losses._Layout(drawn)
    draws = losses._Draws(layout, (0.02, 1.3), whole, np.random.default_rng(1))
    one, asked = layout.sample, Conditions(0.02, 0.05, 0.01)
    changes = 1.3 * (one.values - float(layout.share @ one.values))[:, None]
    chance = 0.1 / draws.room / ((1 + draws.least) / 2)
    part = draws.least + (1 - draws.least) * draws.part
    changes = changes - one.room[:, None] * np.where(draws.rank < draws._bar(chance), part, 0.0)
    found, still = np.zeros(draws.part.shape[1], dtype=bool), np.zeros(draws.part.shape[1], dtype=bool)
    for draw, (change, shift) in enumerate(zip(changes.T, draws.shift, strict=True)):
        mean, p_value = judged(change, one, shift)
        found[draw] = mean <= -0.05 and p_value <= 0.02
        kept = one.second != np.argmax(np.abs(np.bincount(one.second, weights=one.weights * change)))
        mean, p_value = judged(change[kept], Sample(*(column[kept] for column in one)), shift)
        still[draw] = found[draw] and mean < 0 and p_value <= 0.01
    assert 0.1 < still.mean() < found.mean() < 0.9
    assert draws.found(0.1, asked._replace(carried=None)) == found.mean()
    # Without a word the sizes of all clusters are taken for those of the rest: a draw in fifty is judged otherwise.
    assert draws.found(0.1, asked) == pytest.approx(still.mean(), abs=0.025)


def judged(change: Float[np.ndarray, " item"], items: Sample, shift: float) -> tuple[float, float]:
    """(mean, p) where the mean is `shift` away from what was seen."""
    found = two_way(change, items.first, items.second, "", weights=items.weights)
    assert isinstance(found, Rate)
    mean = found.estimate.value + shift
    return mean, float(2 * special.stdtr(found.degrees, -abs(mean) / found.standard_error))


def test_no_loss_would_have_been_found() -> None:
    assert detectable_loss(sample(7), ASKED) == (None, None)
    assert detectable_loss(sample(60)._replace(room=np.full(60, 0.04)), ASKED).surely is None
    assert not math.isnan(detectable_loss(sample(9), ASKED).surely or 0.0)
