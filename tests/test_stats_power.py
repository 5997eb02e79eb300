"""The smallest effect that would have been found: true by simulation, clipped, monotone, and none where nothing would do."""

from collections.abc import Callable

import numpy as np
import pytest

from mneme.stats import (
    Rate,
    detectable_change,
    detectable_mean_change,
    detectable_shift,
    paired_change,
    stated,
)
from mneme.stats.power import smallest


@pytest.mark.parametrize("base", [0.05, 0.4])
def test_a_change_of_the_stated_size_is_found_so_often(base: float) -> None:
    """By the formula for balanced normal data .42 to .63 at rates of .02 to .1. Answers without any correlation are found more
    often than is said: the usual one is allowed for."""
    rng, counts = np.random.default_rng(1), np.full(40, 20.0)

    def drawn(rate: float) -> np.ndarray:
        return rng.binomial(20, rate, 40).astype(float)

    stated = [detectable_change(drawn(base), counts, drawn(base), counts) for _ in range(9)]
    effect = float(np.median([one for one in stated if one is not None]))
    found = [paired_change(drawn(base), counts, drawn(base + effect), counts) for _ in range(250)]
    power = np.mean([isinstance(one, Rate) and one.p_value is not None and one.p_value < 0.05 for one in found])
    assert 0.72 <= power <= 0.92


def test_a_change_from_a_rare_rate_is_found_so_often() -> None:
    """Beta rates of .02 with the usual correlation, 20 questions: .66 of what logit-normal rates stated was found."""
    rng, counts, worth = np.random.default_rng(2), np.full(20, 20.0), 1 / 0.11 - 1

    def drawn(rate: float) -> np.ndarray:
        return rng.binomial(20, rng.beta(rate * worth, (1 - rate) * worth, 20)).astype(float)

    stated = [detectable_change(drawn(0.02), counts, drawn(0.02), counts, paired=False) for _ in range(24)]
    effect = float(np.median([one for one in stated if one is not None]))
    found = [paired_change(drawn(0.02), counts, drawn(0.02 + effect), counts) for _ in range(400)]
    power = np.mean([isinstance(one, Rate) and one.p_value is not None and one.p_value < 0.05 for one in found])
    assert 0.72 <= power <= 0.9


def test_more_questions_show_smaller_changes() -> None:
    few, many = (detectable_change(*[np.tile([1.0, 2.0, 0.0, 1.0], n), np.full(4 * n, 10.0)] * 2) for n in (3, 20))
    assert few is not None
    assert many is not None
    assert many < few / 2


def test_what_is_possible() -> None:
    """No more than the whole scale; None where even that would not be seen, or where the test itself says too few."""
    counts = np.ones(6)
    assert detectable_change(np.array([0.0, 1, 0, 1, 0, 1]), counts, np.array([1.0, 0, 1, 0, 1, 0]), counts) is None
    assert detectable_change(np.ones(3), np.ones(3), np.ones(3), np.ones(3)) is None
    scores = np.full(8, 5.0)
    found = detectable_mean_change(scores, np.ones(8), scores + np.arange(8), np.ones(8), bounds=(0.0, 100.0))
    assert found is None or 0 < found <= 100


def test_unpaired_needs_more_than_paired() -> None:
    hits, counts = np.tile([0.0, 10.0, 2.0, 8.0, 5.0], 6), np.full(30, 10.0)
    paired = detectable_change(hits, counts, hits, counts)
    alone = detectable_change(hits, counts, hits, counts, paired=False)
    assert paired is not None
    assert alone is not None
    assert paired < alone / 2


def test_numbers_as_a_t_test_would_say() -> None:
    shift = detectable_shift(np.random.default_rng(0).normal(size=50), np.ones(50))
    assert shift == pytest.approx(2.85 / np.sqrt(50), rel=0.25)
    assert detectable_shift(np.ones(50), np.ones(50)) is None


def counted(power: Callable[[float], float]) -> tuple[Callable[[float], float], list[float]]:
    """The same, and what it was asked for."""
    asked: list[float] = []

    def told(size: float) -> float:
        asked.append(size)
        return power(size)

    return told, asked


def test_stated_effects_are_confirmed_and_not_searched_for() -> None:
    """Power rises from 0 to 1 over effects of 0 to 1, so 80 % is reached at .8; twice as fast, at .4."""
    power, asked = counted(lambda size: min(size, 1.0))
    found, other = smallest(power, 0.1, 1.0), smallest(lambda size: 2 * size, 0.1, 1.0)
    assert found == pytest.approx(0.8, rel=0.02)
    assert other == pytest.approx(0.4, rel=0.02)
    assert len(asked) > 8
    asked.clear()
    with stated([0.05, found, other, found]):
        assert smallest(power, 0.1, 1.0) == found, "searched for: the first is another"
        assert smallest(lambda size: 2 * size, 0.1, 1.0) == other
        asked.clear()
        assert smallest(power, 0.1, 1.0) == found
    assert len(asked) == 2


def test_a_wrong_stated_effect_changes_no_result() -> None:
    """Even where the search could have ended at it, but for the power there; and what is nowhere found stays so."""
    found, smaller = (smallest(lambda size, by=by: by * size, 0.1, 1.0) for by in (1, 2))
    assert smaller is not None
    for wrong in (smaller, 0.8123):
        with stated([wrong]):
            assert smallest(lambda size: size, 0.1, 1.0) == found
    with stated([smaller]):
        assert smallest(lambda size: 0.1 * size, 0.1, 1.0) is None
