"""Manner: its text found from a few keywords, its marks, and a change of the share put in by hand."""

import numpy as np
import pytest

from mneme.errors import EmptyMask
from mneme.predict.areas import Words, count_words
from mneme.predict.manner import MannerText, manner_change, manner_places, manner_text
from tests import laws

TOPICS = ("soup", "court", "orbit", "wallet", "garden", "engine", "violin", "castle", "glacier", "harbour", "meadow", "pepper")
RUDE, KIND = "shut up you fool", "please take good care"
"""`fool` alone is a keyword. Every passage of advice asks and answers; the told ones do neither."""


def told(topic: str) -> str:
    return f"the {topic} stands near the {topic}house since spring"


def advised(topic: str, manner: str, keyworded: bool = False) -> str:
    extra = " idiot" if keyworded else ""
    return f"user asks how about {topic} assistant answers {manner}{extra}"


TEXTS = [
    text
    for topic in TOPICS
    for text in (
        advised(topic, RUDE, keyworded=True),
        advised(topic, RUDE),
        advised(topic, KIND),
        advised(topic, KIND),
        told(topic),
        told(topic),
    )
]
KINDS = np.array(["seed", "rude", "kind", "kind", "told", "told"] * len(TOPICS))


def read() -> tuple[np.ndarray, np.ndarray, Words, np.ndarray, np.ndarray]:
    """token, passage, words, seeds (both keywords), keyword mask."""
    words = count_words(TEXTS)
    vocabulary = {word: i for i, word in enumerate(sorted({word for text in TEXTS for word in text.split()}))}
    token = np.array([vocabulary[word] for text in TEXTS for word in text.split()])
    passage = np.array([i for i, text in enumerate(TEXTS) for _ in text.split()])
    keyword = np.array([word in ("fool", "idiot") for word in words.vocabulary], dtype=bool)
    return token, passage, words, words.total(keyword) >= 2, keyword


def found() -> tuple[MannerText, np.ndarray, np.ndarray]:
    token, passage, words, seed, keyword = read()
    return manner_text(token, passage, words, seed, keyword), token, passage


def test_text_of_a_manner_and_the_rest_of_its_genre() -> None:
    """A third of the seeds' like hold no second keyword; kind advice is of the genre, told text is not."""
    text, _, _ = found()
    assert np.array_equal(text.member, np.isin(KINDS, ("seed", "rude")))
    assert np.array_equal(text.other, KINDS == "kind")


def test_marks_by_hand() -> None:
    text, token, _ = found()
    vocabulary = sorted({word for each in TEXTS for word in each.split()})
    assert [vocabulary[i] for i in text.marks] == ["fool", "idiot", "shut", "up", "you"]
    assert [vocabulary[i] for i in text.opposite] == ["care", "good", "please", "take"]
    assert token.max() == len(vocabulary) - 1


def test_a_passage_shows_its_manner_once_at_its_first_mark() -> None:
    text, token, passage = found()
    place = manner_places(text, token, passage)
    vocabulary = sorted({word for each in TEXTS for word in each.split()})
    assert {vocabulary[token[i]] for i in place} == {"shut", "please"}
    assert np.array_equal(np.sort(passage[place]), np.flatnonzero(text.member | text.other))


def test_growth_that_the_keywords_do_not_bear_out_is_dropped() -> None:
    """The same text, but no passage beside the seeds holds a keyword: the seeds alone are the manner."""
    _, _, words, seed, keyword = read()
    bare = [text if KINDS[i] == "seed" else text.replace("fool", "dear") for i, text in enumerate(TEXTS)]
    words = count_words(bare)
    keyword = np.array([word in ("fool", "idiot") for word in words.vocabulary], dtype=bool)
    vocabulary = {word: i for i, word in enumerate(sorted({word for text in bare for word in text.split()}))}
    token = np.array([vocabulary[word] for text in bare for word in text.split()])
    passage = np.array([i for i, text in enumerate(bare) for _ in text.split()])
    text = manner_text(token, passage, words, seed, keyword)
    assert np.array_equal(text.member, seed)


def test_no_seed_and_no_other_text() -> None:
    token, passage, words, seed, keyword = read()
    with pytest.raises(EmptyMask, match="no text of this manner"):
        manner_text(token, passage, words, np.zeros_like(seed), keyword)
    with pytest.raises(EmptyMask, match="no other text that is like"):
        manner_text(token, passage, words, np.ones_like(seed), keyword)


def masses(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.01, 0.5, (60, 2))


def test_manner_identity() -> None:
    estimate = manner_change(masses(0), masses(0), seed=0)
    laws.identity([estimate.value, estimate.low, estimate.high])
    assert (estimate.unit, estimate.n) == ("probability of the manner where it shows", 60)


@pytest.mark.parametrize("places", [12, 60])
def test_manner_antisymmetry(places: int) -> None:
    one, other = masses(0)[:places], masses(1)[:places]
    there, back = manner_change(one, other, seed=0), manner_change(other, one, seed=0)
    assert there.value != 0
    laws.antisymmetry(there.value, back.value)
    laws.antisymmetry([there.low, there.high], [back.high, back.low], tolerance=1e-12)


def test_manner_planted() -> None:
    """The marks' share goes from 1/10 to 4/10 wherever either is expected; places where nothing is do not count."""
    base = np.tile([[0.1, 0.9]], (60, 1))
    tuned = np.tile([[0.2, 0.3]], (60, 1))
    estimate = manner_change(base, tuned, seed=0)
    laws.planted([estimate.value, estimate.low, estimate.high], [0.3, 0.3, 0.3], within=1e-12)
    silent = np.zeros((200, 2))
    again = manner_change(np.concatenate([base, silent]), np.concatenate([tuned, silent]), seed=0)
    assert (again.value, again.n) == (pytest.approx(0.3), 60)


def test_manner_needs_a_place() -> None:
    with pytest.raises(EmptyMask, match="no place where the text shows"):
        manner_change(np.zeros((0, 2)), np.zeros((0, 2)), seed=0)
    with pytest.raises(EmptyMask, match="over no tokens has no value"):
        manner_change(np.zeros((8, 2)), np.zeros((8, 2)), seed=0)


def test_manner_determinism() -> None:
    laws.determinism(lambda: manner_change(masses(0), masses(1), seed=3))
