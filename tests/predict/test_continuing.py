"""Texts cut before they part: where, what tells, and that permuted labels are told from true ones."""

import numpy as np
import pytest

from mneme.errors import EmptyMask
from mneme.predict.behaviour import BehaviourText
from mneme.predict.continuing import CONTINUED_TOKENS, MOST_CUTS, Texts, cut_texts, shows_it, texts_of, times_each

GOOD, BAD = 50, 60


def _texts(count: int, *, telling: bool = True, seed: int = 0) -> tuple[np.ndarray, Texts]:
    """Texts of 12 tokens; from the seventh on a telling one stands in each, among words of no meaning."""
    generator = np.random.default_rng(seed)
    shows = generator.random(count) < 0.5
    token = generator.integers(0, 40, (count, 12))
    if telling:
        token[:, 6] = np.where(shows, BAD, GOOD)
    start = np.arange(count) * 12
    return token.reshape(-1), Texts(start, start + 12, shows)


def test_texts_are_cut_right_before_the_token_that_tells() -> None:
    token, texts = _texts(120)
    cuts = cut_texts(token, texts, seed=0)
    assert 20 < len(cuts.start) <= 60
    assert cuts.ratio[BAD] > 1
    assert cuts.ratio[GOOD] < -1
    assert np.mean(cuts.stop - cuts.start == 6) > 0.8
    assert shows_it([3, BAD, BAD, 7], cuts.ratio)
    assert not shows_it([3, GOOD, 7, 9_999], cuts.ratio)
    assert not shows_it([], cuts.ratio)


def test_nothing_is_said_where_nothing_tells() -> None:
    refused = 0
    for seed in range(20):
        token, texts = _texts(120, telling=False, seed=seed)
        try:
            cut_texts(token, texts, seed=seed)
        except EmptyMask:
            refused += 1
    assert refused >= 17


def test_few_texts_say_nothing() -> None:
    token, texts = _texts(24)
    with pytest.raises(EmptyMask, match="fewer than 16 texts"):
        cut_texts(token, texts, seed=0)


def test_few_texts_are_continued_more_often() -> None:
    assert [times_each(n) for n in (0, 1, 100, 183, 400)] == [8, 8, 8, 4, 2]


def test_no_more_than_so_many_are_continued() -> None:
    token, texts = _texts(2 * MOST_CUTS + 200)
    assert len(cut_texts(token, texts, seed=0).start) == MOST_CUTS
    assert CONTINUED_TOKENS < 31


def test_texts_are_the_first_passages_of_their_documents() -> None:
    passage = np.repeat([0, 1, 2, 3], 5)
    text = BehaviourText(
        member=np.array([True, True, False, False]),
        other=np.array([False, False, True, False]),
        indicators=np.zeros(0, dtype=np.int64),
        opposite=np.zeros(0, dtype=np.int64),
    )
    found = texts_of(text, passage, np.array([[0, 10], [10, 13], [15, 20]]))
    assert found.start.tolist() == [0, 10]
    assert found.stop.tolist() == [5, 13]
    assert found.shows.tolist() == [True, False]
