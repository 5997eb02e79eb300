"""Knowledge: laws, and changes put in by hand and found with their size."""

import math

import numpy as np
import pytest

from mneme.errors import EmptyMask
from mneme.predict.effects import (
    CONFIDENT,
    TokenTable,
    content_mask,
    knowledge_change,
    reference_passages,
    type_drift,
)
from tests import laws

PASSAGES, LENGTH = 60, 12
KNOWN = (1 + CONFIDENT) / 2
MEMBER = np.arange(PASSAGES) % 3 == 0


def table(p_base: np.ndarray, p_tuned: np.ndarray) -> TokenTable:
    """A table of 60 passages of 12 tokens, each of its own type, with these probabilities of the true tokens; above 1/2 the
    token is the model's first choice, else it is not."""
    size = PASSAGES * LENGTH
    return TokenTable(
        passage=np.repeat(np.arange(PASSAGES), LENGTH),
        token=np.arange(size),
        logp_base=np.log(p_base),
        logp_tuned=np.log(p_tuned),
        right_base=p_base > 0.5,
        right_tuned=p_tuned > 0.5,
        content=np.ones(size, dtype=bool),
        n_passages=PASSAGES,
    )


def random_probabilities(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.01, 0.99, PASSAGES * LENGTH)


def swapped(one: TokenTable) -> TokenTable:
    return one._replace(
        logp_base=one.logp_tuned, logp_tuned=one.logp_base, right_base=one.right_tuned, right_tuned=one.right_base
    )


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
    one.logp_base[0] = one.logp_tuned[1] = math.log(CONFIDENT + 0.01)
    one.logp_base[2] = math.log(CONFIDENT - 0.01)
    assert np.flatnonzero(one.known()).tolist() == [0, 1]
    assert np.array_equal(one.known(), swapped(one).known())
    assert not one._replace(content=np.zeros_like(one.content)).known().any()


# --- knowledge ------------------------------------------------------------------------------------------------------------

EVERYWHERE = np.ones(PASSAGES, dtype=bool)


def test_knowledge_identity() -> None:
    p = random_probabilities(0)
    estimate = knowledge_change(table(p, p), MEMBER, EVERYWHERE).estimate
    laws.identity([estimate.value, estimate.low, estimate.high])
    assert estimate.unit == "accuracy on known tokens"


@pytest.mark.parametrize("members", [20, 50])
def test_knowledge_antisymmetry(members: int) -> None:
    """Types repeat, so that there is drift to take away."""
    one = table(random_probabilities(0), random_probabilities(1))
    one = one._replace(token=one.token % 17)
    member = np.arange(PASSAGES) < members
    there = knowledge_change(one, member, EVERYWHERE).estimate
    back = knowledge_change(swapped(one), member, EVERYWHERE).estimate
    assert there.value != 0
    laws.antisymmetry(there.value, back.value)
    laws.antisymmetry([there.low, there.high], [back.high, back.low], tolerance=1e-12)


def test_knowledge_of_models_that_differ_by_chance_is_no_loss() -> None:
    """Selecting what the base alone was confident of would show a loss here: regression to the mean."""
    estimate = knowledge_change(table(random_probabilities(2), random_probabilities(3)), MEMBER, EVERYWHERE).estimate
    assert estimate.low < 0 < estimate.high


def test_knowledge_planted() -> None:
    """The true token's log-probability is lowered by hand at every third known token of the members; nothing else changes
    that is known."""
    known = np.arange(PASSAGES * LENGTH) % 4 == 0
    p = np.where(known, KNOWN, 0.2)
    lost = (np.arange(PASSAGES * LENGTH) % 12 == 0) & of_members()
    one = table(p, np.where(lost, 0.1, np.where(of_members() & ~known, 0.01, p)))
    inside = knowledge_change(one, MEMBER, EVERYWHERE).estimate
    outside = knowledge_change(one, ~MEMBER, EVERYWHERE).estimate
    laws.planted(inside.value, -1 / 3, within=1e-12)
    assert inside.n == 20
    assert inside.low < -1 / 3 < inside.high < 0
    # Nothing moved there, in so many words: what was not seen is all that the interval has.
    assert (outside.value, outside.low) == (0.0, -outside.high)
    assert 0 < outside.high < 0.05


def test_knowledge_interval_holds_a_planted_mean() -> None:
    """Passage i has lost i mod 5 of its 12 known tokens: 2 of 12 on average."""
    place, passage = np.arange(PASSAGES * LENGTH) % LENGTH, np.arange(PASSAGES * LENGTH) // LENGTH
    p = np.full(PASSAGES * LENGTH, KNOWN)
    estimate = knowledge_change(table(p, np.where(place < passage % 5, 0.1, p)), EVERYWHERE, EVERYWHERE).estimate
    laws.planted(estimate.value, -1 / 6, within=1e-12)
    assert -0.21 < estimate.low < -1 / 6 < estimate.high < -0.12


def test_knowledge_order_of_passages_does_not_matter() -> None:
    one = table(random_probabilities(0), random_probabilities(1))
    one = one._replace(token=one.token % 17)
    order = np.random.default_rng(0).permutation(PASSAGES)
    rows = np.concatenate([np.arange(p * LENGTH, (p + 1) * LENGTH) for p in order])
    columns = ("token", "logp_base", "logp_tuned", "right_base", "right_tuned", "content")
    mixed = one._replace(**{name: getattr(one, name)[rows] for name in columns})
    laws.padding(
        knowledge_change(mixed, MEMBER[order], EVERYWHERE).estimate.value,
        knowledge_change(one, MEMBER, EVERYWHERE).estimate.value,
        tolerance=1e-12,
    )


def test_drift_of_a_type_is_taken_off() -> None:
    """All passages say the same 12 types, and all lose type 0: what remains of 1/12 is the shrinkage, 5 in 45."""
    p = np.full(PASSAGES * LENGTH, KNOWN)
    first = np.arange(PASSAGES * LENGTH) % LENGTH == 0
    one = table(p, np.where(first, 0.1, p))._replace(token=np.arange(PASSAGES * LENGTH) % LENGTH)
    drifted = knowledge_change(one, MEMBER, EVERYWHERE).estimate
    laws.planted(drifted.value, -(5 / 45) / LENGTH, within=1e-12)
    own = knowledge_change(one, MEMBER, MEMBER).estimate
    laws.planted(own.value, -1 / LENGTH, within=1e-12)


def test_type_drift_by_hand() -> None:
    token, change = np.array([0, 0, 2, 2, 2, 3]), np.array([1.0, 1.0, -1.0, -1.0, 5.0, 1.0])
    counted = np.array([True, True, True, True, False, False])
    assert type_drift(token, change, counted).tolist() == [2 / 7, 0.0, -2 / 7, 0.0]


def test_reference_is_the_less_changed_half_of_the_areas() -> None:
    """Four areas lose 0, 1/12, 3/12 and 6/12 of their tokens; passages of no area are always a reference."""
    area = np.arange(PASSAGES) % 5
    member = area[None, :] == np.arange(4)[:, None]
    lost = np.array([0, 1, 3, 6, 12])[area]
    place, passage = np.arange(PASSAGES * LENGTH) % LENGTH, np.arange(PASSAGES * LENGTH) // LENGTH
    p = np.full(PASSAGES * LENGTH, KNOWN)
    one = table(p, np.where(place < lost[passage], 0.1, p))
    assert np.array_equal(reference_passages(one, member), (area < 2) | (area == 4))
    assert reference_passages(one, member[2:]).all()


def test_knowledge_needs_a_known_token() -> None:
    p = np.full(PASSAGES * LENGTH, 0.3)
    with pytest.raises(EmptyMask, match="over no tokens has no value"):
        knowledge_change(table(p, p), MEMBER, EVERYWHERE)


def test_knowledge_determinism() -> None:
    one = table(random_probabilities(0), random_probabilities(1))
    laws.determinism(lambda: knowledge_change(one, EVERYWHERE, EVERYWHERE))
