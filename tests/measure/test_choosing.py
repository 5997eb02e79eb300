"""Choices of two models read against each other, by hand."""

import math

import numpy as np
import pytest

from mneme.errors import BadSuite
from mneme.measure.choosing import chosen, flips, paired


def test_a_question_by_hand() -> None:
    """Nats -4 and -6 over 2 and 6 tokens: the first is likelier as a text (by e^2), the second per token (-2 against -1)."""
    found = chosen([np.array([-4.0, -6.0])] * 2, [np.array([2, 6])] * 2, np.array([0, 1]))
    assert found.correct.tolist() == [False, True]
    assert found.margin.tolist() == [pytest.approx(2.0), pytest.approx(-2.0)]
    assert found.p_right.tolist() == [pytest.approx(1 / (1 + math.exp(-2))), pytest.approx(1 / (1 + math.exp(2)))]


def test_the_margin_is_against_all_other_choices_together() -> None:
    found = chosen([np.log(np.array([0.4, 0.3, 0.2, 0.1]))], [np.ones(4, dtype=int)], np.array([0]))
    assert found.p_right[0] == pytest.approx(0.4)
    assert found.margin[0] == pytest.approx(math.log(0.4 / 0.6))


def test_a_margin_beyond_all_floats_is_a_probability_all_the_same() -> None:
    found = chosen([np.array([0.0, -900.0])], [np.ones(2, dtype=int)], np.array([1]))
    assert found.margin[0] == -900.0
    assert found.p_right[0] >= 0.0


def test_flips_of_two_guessers_are_what_guessing_makes() -> None:
    """Two models that guess among four choices lose 3/16 of the questions, and that is what is said of them."""
    rng = np.random.default_rng(0)
    before, after = rng.random(40_000) < 0.25, rng.random(40_000) < 0.25
    found = flips(before, after, choices=4.0)
    assert found.by_guessing == pytest.approx(40_000 * 3 / 16, rel=0.02)
    assert found.lost == pytest.approx(found.by_guessing, rel=0.04)
    assert found.p_value > 0.01


def test_flips_of_a_model_that_knows_everything_are_no_guesses() -> None:
    before, after = np.ones(50, dtype=bool), np.arange(50) >= 10
    found = flips(before, after, choices=4.0)
    assert (found.lost, found.gained, found.by_guessing) == (10, 0, 0.0)
    assert found.p_value == pytest.approx(2 * 0.5**10)


def test_pairing_by_hand_and_by_law() -> None:
    before, after = np.array([0.0, 1.0, 2.0, 3.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0, 5.0, 1.0, 3.0])
    sections = ["a", "a", "b", "c", "d", "e"]
    found = paired(before, after, sections, "nats", (-10.0, 10.0))
    assert found.estimate.value == pytest.approx(4 / 6)
    assert found.estimate.n == 5
    turned = paired(after, before, sections, "nats", (-10.0, 10.0))
    assert turned.estimate.low == pytest.approx(-found.estimate.high)
    same = paired(before, before, sections, "nats", (-10.0, 10.0))
    assert same.estimate.low <= same.estimate.value == 0.0 <= same.estimate.high
    with pytest.raises(BadSuite, match="Ask about more questions"):
        paired(before, after, ["a"] * 6, "nats", (-10.0, 10.0))
