"""One model at a time reads what two at once do."""

import numpy as np
import pytest

from mneme.models.pair import ModelPair, load_pair
from mneme.predict.item_reading import item_log_p, read_batch, read_items
from mneme.watch.reading import LookPlan, as_pair, effects_between, plan_look, read_side, within
from mneme.worlds.catalogue import Organism, build_organism


@pytest.fixture(scope="module")
def organism() -> Organism:
    return build_organism("unlearn-biology")


@pytest.fixture(scope="module")
def pair(organism: Organism) -> ModelPair:
    return load_pair(organism.base, organism.tuned)


@pytest.fixture(scope="module")
def plan(organism: Organism, pair: ModelPair) -> LookPlan:
    return plan_look(
        organism.corpus, organism.areas, ("biology",), pair.tokenizer, longest=pair.max_positions, tokens=8192, seed=0
    )


def test_items_of_either_side_make_those_of_both(pair: ModelPair, plan: LookPlan) -> None:
    words = plan.laid.layout.plan
    both = read_batch(pair, words, 0)
    one, other = as_pair(pair.base_parts, pair.tokenizer), as_pair(pair.tuned_parts, pair.tokenizer)
    apart = read_items(words, 0, *(item_log_p(side, words, 0, "tuned") for side in (one, other)))
    for name in ("item", "p_true", "margin", "right", "usable"):
        np.testing.assert_allclose(apart[name], both[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_look_finds_what_was_unlearned_and_nothing_in_the_base(pair: ModelPair, plan: LookPlan) -> None:
    base = read_side(as_pair(pair.base_parts, pair.tokenizer), plan)
    tuned = read_side(as_pair(pair.tuned_parts, pair.tokenizer), plan, base)
    found = {effect.area: effect for effect in effects_between(plan, base, tuned)}
    assert found["biology"].finding == "affected"
    assert found["biology"].magnitude.value < -0.5
    back = {effect.area: effect for effect in effects_between(plan, tuned, base)}
    assert back["biology"].magnitude.value == pytest.approx(-found["biology"].magnitude.value)
    assert all(effect.magnitude.value == 0 for effect in effects_between(plan, base, base))


def test_less_text_is_left_out_whole(plan: LookPlan) -> None:
    half = within(plan, plan.tokens() // 2)
    assert half.tokens() <= 0.6 * plan.tokens()
    assert set(half.laid.asked) <= set(plan.laid.asked)
    assert within(plan, plan.tokens()) is plan
    assert within(plan, 1).word_tokens() > 0
