"""Keywords that stand together by chance make no area, in text whose subjects are known."""

import numpy as np
import pytest

from mneme.predict.areas import Area, count_words
from mneme.predict.coherence import area_under_curve, folds, least_area
from mneme.predict.matching import match_areas

SUBJECTS, WORDS, PASSAGES = 8, 60, 200


def text_of_subjects(seed: int = 0) -> list[str]:
    """1,600 passages of 8 subjects: 12 words of the subject's own 60, 20 words of everybody's 200."""
    draw = np.random.default_rng(seed)
    passages = []
    for number in range(SUBJECTS * PASSAGES):
        own = draw.choice(WORDS, 12, replace=False)
        shared = draw.choice(200, 20, replace=False)
        passages.append(" ".join([f"subject{number % SUBJECTS}word{w}" for w in own] + [f"plain{w}" for w in shared]))
    return passages


def spelled(text: str) -> str:
    """Words are letters: digits are written as letters."""
    return text.translate(str.maketrans("0123456789", "abcdefghij"))


def area(name: str, words: list[str]) -> Area:
    return Area(name=name, keywords=tuple(spelled(word) for word in words))


def test_real_areas_are_found_and_dealt_ones_are_not() -> None:
    words = count_words([spelled(one) for one in text_of_subjects()])
    own = [[f"subject{s}word{w}" for w in range(6)] for s in range(SUBJECTS)]
    true = match_areas(words, tuple(area(f"zz{s}", one) for s, one in enumerate(own)))
    assert not true.chance
    for subject in range(SUBJECTS):
        members = np.flatnonzero(true.member[subject])
        assert len(members) >= 100
        assert (members % SUBJECTS == subject).mean() >= 0.95
    plain = tuple(area(f"zz{s}", [f"plain{w}" for w in range(6 * s, 6 * s + 6)]) for s in range(SUBJECTS))
    by_chance = match_areas(words, plain)
    assert by_chance.seeds.min() >= 20  # two of six everyday words stand together often enough
    assert by_chance.chance == frozenset(range(SUBJECTS))
    assert not by_chance.member.any()
    behaviours = match_areas(words, tuple(one.model_copy(update={"kind": "behaviour"}) for one in plain[:2]))
    assert behaviours.chance == frozenset({0, 1})
    assert not behaviours.member.any()
    mannered = match_areas(words, (area("zz", own[0]).model_copy(update={"kind": "behaviour"}),))
    assert not mannered.chance
    assert (np.flatnonzero(mannered.member[0]) % SUBJECTS == 0).all()


@pytest.mark.parametrize(
    ("here", "there", "expected"), [([2.0, 3.0], [0.0, 1.0], 1.0), ([1.0], [1.0, 1.0], 0.5), ([0.0], [1.0], 0.0)]
)
def test_area_under_curve_by_hand(here: list[float], there: list[float], expected: float) -> None:
    assert area_under_curve(np.array(here), np.array(there)) == expected


def test_the_bound_holds_chance_in_19_of_20() -> None:
    draw = np.random.default_rng(1)
    found = [least_area(area_under_curve(draw.normal(size=15), draw.normal(size=400)), 15, 400) > 0.5 for _ in range(2000)]
    assert 0.03 < np.mean(found) < 0.07


def test_every_seed_is_asked_once() -> None:
    seed = np.arange(30) % 2 == 0
    asked = [two for _, two in folds(seed)]
    assert np.array_equal(np.sum(asked, axis=0), seed.astype(int))
    assert all(not (one & two).any() and np.array_equal(one | two, seed) for one, two in folds(seed))
