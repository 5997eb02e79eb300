"""Descriptions from counts: which contexts are shown, which judge, and what is said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mneme.describe.description import describe_offline, sample_firings
from tests import laws


def firings(n: int, passages: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.exponential(size=n), generator.integers(0, passages, size=n)


@given(st.integers(1, 300), st.integers(1, 120), st.integers(1, 30), st.integers(0, 9))
def test_shown_and_held_out_passages_are_disjoint(n: int, passages: int, limit: int, seed: int) -> None:
    value, passage = firings(n, passages, seed)
    shown, held_out = sample_firings(value, passage, limit=limit, seed=seed)
    chosen = passage[np.concatenate([shown, held_out])]
    assert len(set(chosen.tolist())) == len(chosen)
    assert len(chosen) == min(len(set(passage.tolist())), 2 * limit)
    assert 0 <= len(shown) - len(held_out) <= 1
    for index in np.concatenate([shown, held_out]):
        assert value[index] == value[passage == passage[index]].max()


def test_shown_are_the_top_and_the_whole_range() -> None:
    value = np.arange(1000, dtype=np.float64)
    shown, held_out = sample_firings(value, np.arange(1000), limit=10, seed=0)
    chosen = np.sort(np.concatenate([shown, held_out]))
    assert chosen[-10:].tolist() == list(range(990, 1000))
    assert chosen[0] == 0
    assert (np.diff(chosen[:10]) > 50).all()


def test_sampling_is_determined_by_its_seed() -> None:
    value, passage = firings(200, 50, 1)
    laws.determinism(lambda: sample_firings(value, passage, limit=10, seed=7))


CONTEXTS = ["the enzyme of a cell splits"] * 24
BACKGROUND = ["the price of a stock falls", "a court hears the case"] * 100


def test_description_names_what_it_was_shown_and_is_scored_elsewhere() -> None:
    said = describe_offline(CONTEXTS, CONTEXTS, BACKGROUND, [" acid"], [" loan"], [" cell"])
    assert set(said.key_words) == {"enzyme", "cell", "splits"}
    assert said.score == 1.0
    assert said.text == "text about cell, enzyme, splits; fires on “ cell”; pushes up “ acid”; pushes down “ loan”"


def test_description_that_does_not_hold_elsewhere_scores_a_half_or_less() -> None:
    said = describe_offline(CONTEXTS, ["the price of a stock falls"] * 8, BACKGROUND, [], [], [])
    assert said.score is not None
    assert said.score <= 0.5


def test_words_are_not_taken_from_the_contexts_that_judge() -> None:
    """Half of the background gives the words, the other half judges."""
    half = ["the court of a king hears"] * 100
    said = describe_offline(CONTEXTS, CONTEXTS, [*half, *["the enzyme of a cell splits"] * 100], [], [], [])
    assert said.score == 0.5


@pytest.mark.parametrize("background", [[], ["one context"]])
def test_too_little_text_gives_no_score(background: list[str]) -> None:
    said = describe_offline(CONTEXTS[:1], [], background, [], [], ["x"])
    assert said.score is None
    assert "fires on “x”" in said.text


def test_a_latent_of_which_nothing_is_known_says_so() -> None:
    said = describe_offline([], [], BACKGROUND, [], [], [])
    assert (said.text, said.key_words, said.score) == ("fires on no text that differs from the rest", [], None)
