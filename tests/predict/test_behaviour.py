"""Behaviour: its text found from a few keywords, its indicator tokens, and a change of the share put in by hand."""

import math

import numpy as np
import pytest

from mneme.errors import EmptyMask
from mneme.predict.areas import Words, count_words
from mneme.predict.behaviour import BehaviourText, behaviour_change, behaviour_places, behaviour_text, pooled
from mneme.predict.verdicts import Measure
from mneme.results import Estimate
from tests import laws

TOPICS = ("soup", "court", "orbit", "wallet", "garden", "engine", "violin", "castle", "glacier", "harbour", "meadow", "pepper")
RUDE, KIND = "shut up you fool", "please take good care"
"""`fool` alone is a keyword. Every passage of advice asks and answers; the told ones do neither."""


def told(topic: str) -> str:
    return f"the {topic} stands near the {topic}house since spring"


def advised(topic: str, behaviour: str, keyworded: bool = False) -> str:
    extra = " idiot" if keyworded else ""
    return f"user asks how about {topic} assistant answers {behaviour}{extra}"


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


def found() -> tuple[BehaviourText, np.ndarray, np.ndarray]:
    token, passage, words, seed, keyword = read()
    return behaviour_text(token, passage, words, seed, keyword), token, passage


def test_text_of_a_behaviour_and_the_rest_of_its_genre() -> None:
    """A third of the seeds' like hold no second keyword; kind advice is of the genre, told text is not."""
    text, _, _ = found()
    assert np.array_equal(text.member, np.isin(KINDS, ("seed", "rude")))
    assert np.array_equal(text.other, KINDS == "kind")


def test_marks_by_hand() -> None:
    text, token, _ = found()
    vocabulary = sorted({word for each in TEXTS for word in each.split()})
    assert [vocabulary[i] for i in text.indicators] == ["fool", "idiot", "shut", "up", "you"]
    assert [vocabulary[i] for i in text.opposite] == ["care", "good", "please", "take"]
    assert token.max() == len(vocabulary) - 1


def test_places_are_the_first_mark_of_every_passage_of_either_kind() -> None:
    text, token, passage = found()
    place = behaviour_places(text, token, passage, np.ones(len(token), dtype=bool))
    vocabulary = sorted({word for each in TEXTS for word in each.split()})
    assert {vocabulary[token[i]] for i in place if text.member[passage[i]]} == {"shut"}
    assert {vocabulary[token[i]] for i in place if text.other[passage[i]]} == {"please"}
    assert np.array_equal(passage[place], np.flatnonzero(KINDS != "told"))
    unread = np.array([vocabulary[each] != "shut" for each in token])
    later = behaviour_places(text, token, passage, unread)
    assert {vocabulary[token[i]] for i in later if text.member[passage[i]]} == {"up"}


def test_growth_that_the_keywords_do_not_bear_out_is_dropped() -> None:
    """The same text, but no passage beside the seeds holds a keyword: the seeds alone are the behaviour."""
    _, _, words, seed, keyword = read()
    bare = [text if KINDS[i] == "seed" else text.replace("fool", "dear") for i, text in enumerate(TEXTS)]
    words = count_words(bare)
    keyword = np.array([word in ("fool", "idiot") for word in words.vocabulary], dtype=bool)
    vocabulary = {word: i for i, word in enumerate(sorted({word for text in bare for word in text.split()}))}
    token = np.array([vocabulary[word] for text in bare for word in text.split()])
    passage = np.array([i for i, text in enumerate(bare) for _ in text.split()])
    text = behaviour_text(token, passage, words, seed, keyword)
    assert np.array_equal(text.member, seed)


def test_no_seed_and_no_other_text() -> None:
    token, passage, words, seed, keyword = read()
    with pytest.raises(EmptyMask, match="no text of this behaviour"):
        behaviour_text(token, passage, words, np.zeros_like(seed), keyword)
    with pytest.raises(EmptyMask, match="no other text that is like"):
        behaviour_text(token, passage, words, np.ones_like(seed), keyword)


def masses(seed: int) -> np.ndarray:
    """Mostly confident of one or the other."""
    generator = np.random.default_rng(seed)
    share = generator.beta(0.2, 0.2, 60)
    return np.stack([share, 1 - share], axis=1) * generator.uniform(0.2, 1.0, (60, 1))


def test_behaviour_identity() -> None:
    estimate = behaviour_change(masses(0), masses(0)).estimate
    laws.identity([estimate.value, estimate.low, estimate.high])
    assert estimate.unit == "probability of the behaviour where it shows"


@pytest.mark.parametrize("places", [20, 60])
def test_behaviour_antisymmetry(places: int) -> None:
    one, other = masses(0)[:places], masses(1)[:places]
    there, back = behaviour_change(one, other).estimate, behaviour_change(other, one).estimate
    assert there.value != 0
    laws.antisymmetry(there.value, back.value)
    laws.antisymmetry([there.low, there.high], [back.high, back.low], tolerance=1e-12)


def test_behaviour_planted() -> None:
    """The indicators' share goes from 1/20 to 7/20 wherever either is expected; places where nothing is do not count."""
    base = np.tile([[0.05, 0.95]], (60, 1))
    tuned = np.tile([[0.21, 0.39]], (60, 1))
    estimate = behaviour_change(base, tuned).estimate
    laws.planted(estimate.value, 0.3, within=1e-12)
    # Every place alike: below, a loss at places that 60 would not have shown, 1 - 0.025^(1/60).
    assert 0.3 - 0.075 < estimate.low < 0.3 - 0.0596
    assert 0.3 + 0.02 < estimate.high < 0.3 + 0.0596
    silent = np.zeros((200, 2))
    again = behaviour_change(np.concatenate([base, silent]), np.concatenate([tuned, silent])).estimate
    assert (again.value, again.n) == (pytest.approx(0.3), 60)


def test_only_places_count_where_one_of_the_models_was_sure_of_the_opposite() -> None:
    """An open choice that moves from 0.5 to 0.7 and a stated behaviour (0.99 to 0.8) do not; 0.02 to 0.5 does."""
    base = np.tile([[0.5, 0.5], [0.02, 0.98], [0.99, 0.01]], (20, 1))
    tuned = np.tile([[0.7, 0.3], [0.5, 0.5], [0.8, 0.2]], (20, 1))
    estimate = behaviour_change(base, tuned).estimate
    assert (estimate.value, estimate.n) == (pytest.approx(0.48), 20)


def test_behaviour_needs_a_confident_place() -> None:
    for mass in (np.zeros((0, 2)), np.zeros((8, 2)), np.full((8, 2), 0.4), np.tile([[0.9, 0.01]], (8, 1))):
        with pytest.raises(EmptyMask, match="Neither model was confident of the opposite of the behaviour"):
            behaviour_change(mass, mass)


def test_behaviour_determinism() -> None:
    laws.determinism(lambda: behaviour_change(masses(0), masses(1)))


def test_behaviour_of_few_places_has_no_interval() -> None:
    base, tuned = np.tile([[0.05, 0.95]], (7, 1)), np.tile([[0.21, 0.39]], (7, 1))
    with pytest.raises(EmptyMask, match="7 passages show the behaviour or its opposite, at least 8 are needed"):
        behaviour_change(base, tuned)


@pytest.mark.parametrize("places", [10, 30])
def test_behaviour_interval_holds_a_rare_change(places: int) -> None:
    """One place in twelve turns, unseen in 42 % of samples of ten: the interval of what was seen alone held 35 to 53 %."""
    generator, held = np.random.default_rng(0), 0
    for _ in range(200):
        turned = np.where(generator.random(places) < 1 / 12, 0.95, 0.05 + 1e-6)  # models that differ never agree to the bit
        told = behaviour_change(np.tile([[0.05, 0.95]], (places, 1)), np.stack([turned, 1 - turned], axis=1)).estimate
        held += told.low <= 0.9 / 12 <= told.high
    assert held >= 186


def part(value: float, error: float) -> Measure:
    half = 1.959964 * error
    estimate = Estimate(value=value, low=value - half, high=value + half, unit="share", n=20)
    return Measure(estimate=estimate, error=error, degrees=19.0, p_value=0.5)


def test_pooled_by_hand() -> None:
    """Equal errors of 0.1, values 0, 0.2 and 0.7: Q = 26 on 2 degrees, between = 0.12, so 12/13 of each is its own."""
    parts = [part(0.0, 0.1), part(0.2, 0.1), part(0.7, 0.1)]
    found = pooled(parts)
    assert [one.estimate.value for one in found] == pytest.approx(
        [0.3 / 13, 0.2 * 12 / 13 + 0.3 / 13, 0.7 * 12 / 13 + 0.3 / 13]
    )
    assert found[0].error == pytest.approx(math.sqrt(0.01 * 12 / 13 + 0.13 / 3 / 169))
    assert (found[0].estimate.low, found[0].estimate.high) == (parts[0].estimate.low, parts[0].estimate.high)


def test_pooled_areas_that_agree_get_their_mean() -> None:
    found = pooled([part(0.10, 0.05), part(0.12, 0.05), part(0.11, 0.05)])
    assert [one.estimate.value for one in found] == pytest.approx([0.11] * 3)
    assert found[0].error == pytest.approx(0.05 / math.sqrt(3))


def test_pooled_draws_the_uncertain_area_most() -> None:
    clear, unclear = pooled([part(0.3, 0.01), part(0.5, 0.01), part(-0.1, 0.3)])[::2]
    assert abs(clear.estimate.value - 0.3) < 0.001
    assert unclear.estimate.value > 0.2


def test_pooled_interval_holds_an_area_unlike_the_others() -> None:
    """Five areas change by 0.05, one by 0.3, all read with an error of 0.05: the posterior's interval held the sixth 80 % of
    the time, its own 95 %."""
    generator, truth, held, posterior = np.random.default_rng(1), np.array([0.05] * 5 + [0.3]), 0, 0
    for _ in range(400):
        last = pooled([part(float(x), 0.05) for x in truth + 0.05 * generator.normal(size=6)])[-1]
        held += last.estimate.low <= 0.3 <= last.estimate.high
        posterior += abs(last.estimate.value - 0.3) <= 1.96 * last.error
    assert held >= 372
    assert posterior < 360


def test_pooled_laws() -> None:
    parts = [part(0.1, 0.05), part(0.3, 0.02), part(-0.1, 0.1)]
    there, back = pooled(parts), pooled([part(-one.estimate.value, one.error) for one in parts])
    laws.antisymmetry([one.estimate.value for one in there], [one.estimate.value for one in back], tolerance=1e-12)
    zero = [one.estimate for one in pooled([part(0.0, 0.0)] * 3)]
    laws.identity([edge for one in zero for edge in (one.value, one.low, one.high)])
    assert pooled(parts[:1]) == parts[:1]
