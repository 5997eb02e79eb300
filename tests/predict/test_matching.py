"""Areas against each other: whose passage is it?"""

import numpy as np
import pytest

from mneme.predict.areas import Area, Words, count_words
from mneme.predict.matching import compete, left_out_log_odds, match_areas, naive_bayes_log_odds


def without(words: Words, passage: int) -> Words:
    """The same text without one passage's words, which is still counted as a passage."""
    keep = words.passage != passage
    return Words(words.vocabulary, words.passage[keep], words.word[keep], words.n_passages)


def some_text(n: int = 60, seed: int = 3) -> tuple[Words, np.ndarray]:
    draw = np.random.default_rng(seed)
    chosen = np.arange(n) % 3 == 0
    own, other = [f"own{c}" for c in "abcdefgh"], [f"other{c}" for c in "abcdefgh"]
    common = [f"common{c}" for c in "abcdef"]
    texts = [" ".join([*draw.choice(own if one else other, 3), *draw.choice(common, 3)]) for one in chosen]
    return count_words(texts), chosen


def test_a_passage_does_not_speak_for_itself() -> None:
    """As if the classifier had been taught by the other passages alone, one at a time."""
    words, chosen = some_text()
    found = left_out_log_odds(words, chosen)
    for passage in range(0, words.n_passages, 7):
        rest = np.arange(words.n_passages) != passage
        inside = words.frequency(chosen & rest)
        outside = words.frequency(rest) - inside
        n_in, n_out = int((chosen & rest).sum()), int((~chosen & rest).sum())
        ratio = np.log((inside + 0.5) / (n_in + 1)) - np.log((outside + 0.5) / (n_out + 1))
        ratio = np.where(inside + outside < 3, 0.0, np.clip(ratio, -3, 3))
        own = words.word[words.passage == passage]
        n, n_chosen = words.n_passages, int(chosen.sum())
        assert found[passage] == pytest.approx(ratio[own].sum() + np.log((n_chosen + 0.5) / (n - n_chosen + 0.5)))


def test_words_that_no_other_passage_holds_say_nothing() -> None:
    """A seed of words of its own stands at the prior; told by itself it would be sure."""
    words = count_words(["rare unique odd"] * 1 + ["plain text here"] * 20)
    chosen = np.arange(21) == 0
    assert left_out_log_odds(words, chosen)[0] == pytest.approx(np.log(1.5 / 20.5))
    twice = count_words(["rare unique odd"] * 3 + ["plain text here"] * 20)
    assert naive_bayes_log_odds(twice, np.arange(23) < 3)[0] > left_out_log_odds(twice, np.arange(23) < 3)[0]


def two_subjects(n: int = 400) -> tuple[list[str], np.ndarray]:
    """Half of the passages on metals, half on music. A word of either is a keyword of both lists."""
    draw = np.random.default_rng(0)
    is_metal = np.arange(n) % 2 == 0
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = []
    for metal in is_metal:
        own = draw.choice([f"{'metal' if metal else 'music'}{c}" for c in letters], 5, replace=False)
        shared = draw.choice(["bell", "string", "horn"], 2, replace=False) if draw.random() < 0.4 else []
        texts.append(" ".join([*own, *shared, *draw.choice([f"common{c}" for c in letters], 8)]))
    return texts, is_metal


def test_seeds_that_read_like_another_area_go_to_it() -> None:
    """Two keywords that stand in text of another subject are no seed: 40 % of all passages hold two words of both lists."""
    texts, is_metal = two_subjects()
    shared = ("bell", "string", "horn")
    areas = (
        Area(name="metals", keywords=(*(f"metal{c}" for c in "abcdef"), *shared)),
        Area(name="music", keywords=(*(f"music{c}" for c in "abcdef"), *shared)),
    )
    words = count_words(texts)
    found = match_areas(words, areas)
    for member, own in zip(found.member, (is_metal, ~is_metal), strict=True):
        assert member.sum() >= 0.7 * own.sum()
        assert own[member].mean() >= 0.98
    hits = np.stack(
        [words.total(np.isin(np.arange(len(words.vocabulary)), [words.vocabulary[k] for k in one.keywords])) for one in areas]
    )
    seeds = hits >= 2
    assert is_metal[seeds[0]].mean() < 0.8  # what two keywords alone say
    member, odds = compete(words, seeds, hits > 0)
    assert is_metal[member[0]].mean() >= 0.98
    assert (odds[0][member[0]] > 0).all()


def test_an_area_that_loses_nearly_all_keeps_its_seeds() -> None:
    """Half of its eight seeds are of one subject, half of another: they do not read alike."""
    words, chosen = some_text(90)
    mixed = (chosen & (np.cumsum(chosen) <= 4)) | (~chosen & (np.cumsum(~chosen) <= 4))
    seeds = np.stack([chosen, mixed])
    member, odds = compete(words, seeds, np.stack([np.ones_like(mixed), mixed]))
    assert (member[1] == mixed).all()
    assert np.isneginf(odds[1][~mixed]).all()
    assert chosen[member[0]].mean() == 1.0


@pytest.mark.parametrize("kind", ["capability", "behaviour"])
def test_one_word_of_many_is_not_the_area(kind: str) -> None:
    """A text of history that speaks of rulers is no text on seeking power, whose list holds that word and 46 others; an area
    that names no more than that word is what its user says."""
    words = count_words(["the ruler of the old kingdom built walls"] * 30 + ["bread and butter for breakfast"] * 70)
    listed = Area(name="seeking power", kind=kind, keywords=("ruler", "takeover", "dominance", "influence"))
    found = match_areas(words, (listed,))
    assert found.seeds[0] == 0
    assert not found.member.any()
    alone = match_areas(words, (Area(name="ruler", kind=kind),))
    assert alone.member[0].tolist() == [True] * 30 + [False] * 70
