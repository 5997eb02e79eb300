"""Key words and their score, by hand."""

import math

import pytest

from mneme.describe.phrases import context_words, detection_score, key_words
from mneme.errors import EmptyMask


def test_context_words() -> None:
    assert context_words("The CELL's wall, and 3 cells; snake_case naïve") == [
        *("the", "cell's", "wall", "and", "3", "cells", "snake", "case", "naïve"),
    ]


def test_key_words_by_hand() -> None:
    """Log-odds with an informative Dirichlet prior (Monroe et al. 2008): 500 prior words, spread as both sides together."""
    contexts = ["enzyme wall"] * 40
    background = ["stock wall"] * 40
    (word, z), *rest = key_words(contexts, background)
    prior = 500 * 40 / 160
    a, b = 40 + prior, 0 + prior
    gap = math.log(a / (80 + 500 - a)) - math.log(b / (80 + 500 - b))
    assert (word, rest) == ("enzyme", [])
    assert z == pytest.approx(gap / math.sqrt(1 / a + 1 / b))


def test_key_words_count_contexts_not_occurrences() -> None:
    """One context that says a word 50 times is one context."""
    contexts = ["enzyme cell"] * 30 + ["spam " * 50]
    assert [word for word, _ in key_words(contexts, ["stock wall"] * 30)] == ["cell", "enzyme"]


def test_key_words_are_limited_and_the_strongest_first() -> None:
    words = [f"w{i}" for i in range(12)]
    contexts = [" ".join(words[: 1 + i % 12]) for i in range(240)]
    found = key_words(contexts, ["stock wall"] * 240, limit=5)
    assert [word for word, _ in found] == ["w0", "w1", "w2", "w3", "w4"]
    assert [z for _, z in found] == sorted((z for _, z in found), reverse=True)


def test_words_of_the_background_are_no_key_words() -> None:
    assert key_words(["the wall of stock"] * 30, ["the wall of stock"] * 30) == []


@pytest.mark.parametrize(("contexts", "background"), [([], ["a"]), (["a"], [])])
def test_key_words_need_both_sides(contexts: list[str], background: list[str]) -> None:
    with pytest.raises(EmptyMask, match="at least one context and one background context"):
        key_words(contexts, background)


def test_detection_score_by_hand() -> None:
    """4 of 5 held-out contexts hold a word and 1 of 10 others does: (0.8 + 0.9) / 2."""
    held_out = ["an Enzyme here"] * 3 + ["a cell"] + ["nothing"]
    background = ["one cell"] + ["stock"] * 9
    assert detection_score(["enzyme", "cell"], held_out, background) == pytest.approx(0.85)


def test_detection_of_what_fits_everything_is_a_half() -> None:
    assert detection_score(["the"], ["the cell"] * 6, ["the stock"] * 6) == 0.5


def test_too_few_contexts_are_an_absence() -> None:
    assert detection_score(["cell"], ["a cell"] * 4, ["stock"] * 9) is None
    assert detection_score(["cell"], ["a cell"] * 9, ["stock"] * 4) is None
    assert detection_score([], ["a cell"] * 9, ["stock"] * 9) is None
