"""Choices of two models read against each other, by hand."""

import math

import numpy as np
import pytest

from mneme.errors import BadSuite
from mneme.measure.choosing import flips, paired, paired_share, read_scores


def test_a_question_by_hand() -> None:
    """Nats -4 and -6 over 2 and 6 tokens: the first is likelier as a text (by e^2), the second per token (-2 against -1)."""
    found = read_scores([np.array([-4.0, -6.0])] * 2, [np.array([2, 6])] * 2, np.array([0, 1]))
    assert found.correct.tolist() == [False, True]
    assert found.margin.tolist() == [pytest.approx(2.0), pytest.approx(-2.0)]
    assert found.p_right.tolist() == [pytest.approx(1 / (1 + math.exp(-2))), pytest.approx(1 / (1 + math.exp(2)))]


def test_the_margin_is_against_all_other_choices_together() -> None:
    found = read_scores([np.log(np.array([0.4, 0.3, 0.2, 0.1]))], [np.ones(4, dtype=int)], np.array([0]))
    assert found.p_right[0] == pytest.approx(0.4)
    assert found.margin[0] == pytest.approx(math.log(0.4 / 0.6))


def test_a_margin_beyond_all_floats_is_a_probability_all_the_same() -> None:
    found = read_scores([np.array([0.0, -900.0])], [np.ones(2, dtype=int)], np.array([1]))
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
    """Nine sections, the first with two questions: mean and standard error by hand, the sign turns with the pair."""
    before = np.zeros(10)
    after = np.array([1.0, 0.0, 0.0, 2.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    sections = [*"aabcdefghi"]
    found = paired(before, after, sections, "nats")
    sums, counts = np.array([1.0, 0, 2, 0, 1, 0, 1, 0, 1]), np.array([2.0, *[1] * 8])
    error = math.sqrt(float(((sums - 0.6 * counts) ** 2 / (1 - counts / 10)).sum())) / 10
    assert (found.estimate.value, found.estimate.n) == (pytest.approx(0.6), 9)
    assert found.standard_error == pytest.approx(error)
    assert found.estimate.high - 0.6 > 2 * error
    turned = paired(after, before, sections, "nats")
    assert turned.estimate.value == pytest.approx(-0.6)
    assert turned.estimate.low == pytest.approx(-found.estimate.high)
    same = paired(before, before, sections, "nats")
    assert (same.estimate.low, same.estimate.high, same.standard_error) == (0.0, 0.0, 0.0)
    with pytest.raises(BadSuite, match="Ask about more questions"):
        paired(before, after, ["a"] * 10, "nats")


def test_questions_that_move_alike_are_sure_of_it() -> None:
    moved = paired(np.zeros(40), -0.9 + 0.01 * np.cos(np.arange(40)), [str(i) for i in range(40)], "nats")
    assert -0.91 < moved.estimate.low < moved.estimate.high < -0.89


def test_no_flip_is_not_certainty() -> None:
    right = np.arange(40) % 2 == 0
    found = paired_share(right, right, [str(i) for i in range(40)], "accuracy")
    assert found.estimate.low < -0.02 < found.estimate.value == 0.0 < 0.02 < found.estimate.high
