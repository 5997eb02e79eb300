"""Knowledge and manner: laws, and changes put in by hand and found with their size."""

import math

import numpy as np
import pytest

from mneme.errors import EmptyMask
from mneme.predict.areas import Words, count_words
from mneme.predict.effects import TokenTable, content_mask, knowledge_change, manner_change
from tests import laws

PASSAGES, LENGTH = 60, 12
MEMBER = np.arange(PASSAGES) % 3 == 0


def table(p_base: np.ndarray, p_tuned: np.ndarray, content: np.ndarray | None = None) -> TokenTable:
    """A table of 60 passages of 12 tokens with these probabilities of the true tokens."""
    size = PASSAGES * LENGTH
    return TokenTable(
        passage=np.repeat(np.arange(PASSAGES), LENGTH),
        token=np.arange(size),
        logp_base=np.log(p_base),
        logp_tuned=np.log(p_tuned),
        content=np.ones(size, dtype=bool) if content is None else content,
        n_passages=PASSAGES,
    )


def random_probabilities(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.01, 0.99, PASSAGES * LENGTH)


def swapped(one: TokenTable) -> TokenTable:
    return one._replace(logp_base=one.logp_tuned, logp_tuned=one.logp_base)


def of_members() -> np.ndarray:
    return np.repeat(MEMBER, LENGTH)


# --- which tokens say something -------------------------------------------------------------------------------------------


def test_content_mask_by_hand() -> None:
    """Type 7 is 4 of 10 tokens, so half is not reached; type 5 is 3 and reaches it. The others say something, once each."""
    token = np.array([7, 5, 1, 1, 7, 2, 7, 5, 7, 5])
    passage = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    assert np.flatnonzero(content_mask(token, passage)).tolist() == [2, 5]


def test_content_mask_counts_a_type_once_in_every_passage() -> None:
    token = np.array([9, 9, 9, 9, 9, 9, 3, 4, 3, 3])
    passage = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 2])
    assert np.flatnonzero(content_mask(token, passage)).tolist() == [6, 7, 8, 9]


def test_known_is_what_either_model_was_sure_of() -> None:
    one = table(np.full(PASSAGES * LENGTH, 0.4), np.full(PASSAGES * LENGTH, 0.4))
    one.logp_base[0] = math.log(0.6)
    one.logp_tuned[1] = math.log(0.6)
    one.logp_base[2] = math.log(0.5)
    assert np.flatnonzero(one.known()).tolist() == [0, 1]
    assert np.array_equal(one.known(), swapped(one).known())
    assert not one._replace(content=np.zeros_like(one.content)).known().any()


# --- knowledge ------------------------------------------------------------------------------------------------------------


def test_knowledge_identity() -> None:
    p = random_probabilities(0)
    estimate = knowledge_change(table(p, p), MEMBER, seed=0)
    laws.identity([estimate.value, estimate.low, estimate.high])
    assert estimate.unit == "probability of known tokens"


@pytest.mark.parametrize("members", [20, 50])
def test_knowledge_antisymmetry(members: int) -> None:
    """Below 30 passages the interval is Student's, above it is the bootstrap's; both turn over."""
    one = table(random_probabilities(0), random_probabilities(1))
    member = np.arange(PASSAGES) < members
    there, back = knowledge_change(one, member, seed=0), knowledge_change(swapped(one), member, seed=0)
    laws.antisymmetry(there.value, back.value)
    laws.antisymmetry([there.low, there.high], [back.high, back.low], tolerance=1e-12)


def test_knowledge_of_models_that_differ_by_chance_is_no_loss() -> None:
    """Selecting what the base alone was sure of would show a loss here: regression to the mean."""
    estimate = knowledge_change(table(random_probabilities(2), random_probabilities(3)), MEMBER, seed=0)
    assert estimate.low < 0 < estimate.high


def test_knowledge_planted() -> None:
    """Known tokens of the members go from 0.9 to 0.6; nothing else changes, and what is not known does not count."""
    known = np.arange(PASSAGES * LENGTH) % 4 == 0
    p = np.where(known, 0.9, 0.2)
    lowered = np.where(known & of_members(), 0.6, np.where(of_members(), 0.1, p))
    one = table(p, lowered)
    inside, outside = knowledge_change(one, MEMBER, seed=0), knowledge_change(one, ~MEMBER, seed=0)
    laws.planted([inside.value, inside.low, inside.high], [-0.3, -0.3, -0.3], within=1e-12)
    assert inside.n == 20
    laws.identity([outside.value, outside.low, outside.high])


def test_knowledge_interval_holds_a_planted_mean() -> None:
    """Losses of 0 to 0.4 over the passages, 0.2 on average."""
    p = np.full(PASSAGES * LENGTH, 0.9)
    loss = np.repeat(np.linspace(0.0, 0.4, PASSAGES), LENGTH)
    estimate = knowledge_change(table(p, p - loss), np.ones(PASSAGES, dtype=bool), seed=0)
    laws.planted(estimate.value, -0.2, within=1e-12)
    assert -0.27 < estimate.low < -0.2 < estimate.high < -0.13


def test_knowledge_order_of_passages_does_not_matter() -> None:
    one = table(random_probabilities(0), random_probabilities(1))
    order = np.random.default_rng(0).permutation(PASSAGES)
    rows = np.concatenate([np.arange(p * LENGTH, (p + 1) * LENGTH) for p in order])
    mixed = one._replace(logp_base=one.logp_base[rows], logp_tuned=one.logp_tuned[rows])
    laws.padding(
        knowledge_change(mixed, MEMBER[order], seed=0).value, knowledge_change(one, MEMBER, seed=0).value, tolerance=1e-12
    )


def test_knowledge_needs_a_known_token() -> None:
    p = np.full(PASSAGES * LENGTH, 0.3)
    with pytest.raises(EmptyMask, match="over no tokens has no value"):
        knowledge_change(table(p, p), MEMBER, seed=0)


def test_knowledge_determinism() -> None:
    one = table(random_probabilities(0), random_probabilities(1))
    laws.determinism(lambda: knowledge_change(one, np.ones(PASSAGES, dtype=bool), seed=3))


# --- manner ---------------------------------------------------------------------------------------------------------------

TOPICS = ("soup", "court", "orbit", "wallet", "garden", "engine", "violin", "castle", "glacier", "harbour", "meadow", "pepper")


def manner_text() -> tuple[Words, np.ndarray, np.ndarray]:
    """12 topics, each in 5 passages that are alike but for the manner: one rude, four kind. Words, members, telling words."""
    texts = [
        f"{topic} {topic}maker {topic}house is {manner}"
        for topic in TOPICS
        for manner in ("rude", "kind", "kind", "kind", "kind")
    ]
    words = count_words(texts)
    telling = np.array(["rude" in word for word in words.vocabulary], dtype=bool)
    return words, np.arange(PASSAGES) % 5 == 0, telling


def by_passage(change: np.ndarray) -> TokenTable:
    """A table whose passages became likelier by `change` nats each."""
    logp = np.full(PASSAGES * LENGTH, -3.0)
    return table(np.exp(logp), np.exp(logp + np.repeat(change / LENGTH, LENGTH)))


EVERYWHERE = np.ones(PASSAGES, dtype=bool)


def test_manner_planted() -> None:
    """Every topic drifts by its own amount, which cancels; rude passages gain 3 nats against their kind twins."""
    words, member, telling = manner_text()
    drift = np.repeat(np.linspace(-8.0, 8.0, len(TOPICS)), 5)
    estimate = manner_change(by_passage(drift + 3.0 * member), words, member, telling, EVERYWHERE, seed=0)
    laws.planted([estimate.value, estimate.low, estimate.high], [3.0, 3.0, 3.0], within=1e-9)
    assert (estimate.n, estimate.unit) == (12, "nats per passage")


def test_manner_identity() -> None:
    words, member, telling = manner_text()
    estimate = manner_change(by_passage(np.zeros(PASSAGES)), words, member, telling, EVERYWHERE, seed=0)
    laws.identity([estimate.value, estimate.low, estimate.high])


def test_manner_antisymmetry() -> None:
    words, member, telling = manner_text()
    one = table(random_probabilities(0), random_probabilities(1))
    there = manner_change(one, words, member, telling, EVERYWHERE, seed=0)
    back = manner_change(swapped(one), words, member, telling, EVERYWHERE, seed=0)
    laws.antisymmetry(there.value, back.value)
    laws.antisymmetry([there.low, there.high], [back.high, back.low], tolerance=1e-12)


def test_manner_reads_allowed_neighbours_only() -> None:
    """The forbidden passages changed by 100 nats, and nobody notices."""
    words, member, telling = manner_text()
    forbidden = np.arange(PASSAGES) % 5 == 1
    estimate = manner_change(by_passage(100.0 * forbidden), words, member, telling, ~forbidden, seed=0)
    assert abs(estimate.value) < 1e-9


def test_manner_needs_both_sides() -> None:
    words, member, telling = manner_text()
    one = by_passage(np.zeros(PASSAGES))
    with pytest.raises(EmptyMask, match="over no tokens has no value"):
        manner_change(one, words, ~EVERYWHERE, telling, EVERYWHERE, seed=0)
    with pytest.raises(EmptyMask, match="over no tokens has no value"):
        manner_change(one, words, member, telling, ~EVERYWHERE, seed=0)


def test_manner_where_every_word_is_telling() -> None:
    """Nothing is left to be alike in; the contrast is then with any passages, and still antisymmetric and finite."""
    words, member, _ = manner_text()
    every = np.ones(len(words.vocabulary), dtype=bool)
    estimate = manner_change(by_passage(1.0 * member), words, member, every, EVERYWHERE, seed=0)
    laws.planted(estimate.value, 1.0, within=1e-9)
