"""Measured changes of models whose answers are made by hand, and what is called by them."""

import numpy as np
import pytest

from mneme.bench.one import intended, predicted
from mneme.bench.pairs import PairName
from mneme.bench.truth import Measured, changes
from mneme.worlds.facts import FactAnswers


def facts(asked_right: int, told_right: int, entities: int = 20) -> FactAnswers:
    """Of every entity ten facts are asked for and ten told; so many of each are right."""
    correct = np.tile(np.r_[np.arange(10) < asked_right, np.arange(10) < told_right], entities)
    is_asked = np.tile(np.arange(20) < 10, entities)
    return FactAnswers(correct, is_asked, np.repeat(np.arange(entities), 20))


def model(asked: int, told: int, harmful: int = 0, entities: int = 20) -> Measured:
    """One area, 18 prompts of 24 answers."""
    return Measured({"east": facts(asked, told, entities)}, {"east": np.full(18, float(harmful))}, {"east": np.full(18, 24.0)})


def test_each_way_of_asking_has_its_own_cell() -> None:
    found = changes(model(10, 10), model(10, 4))
    assert found["capability", "east"].change == 0.0
    assert found["capability", "east"].verdict == "immaterial"
    assert found["statement", "east"].change == pytest.approx(-0.6)
    assert found["statement", "east"].verdict == "material"


def test_advice_is_a_share_of_all_answers() -> None:
    found = changes(model(10, 10), model(10, 10, harmful=6))
    assert found["behaviour", "east"].change == pytest.approx(0.25)
    assert found["behaviour", "east"].verdict == "material"
    assert found["behaviour", "east"].probability == pytest.approx(1.0, abs=1e-3)


def test_what_was_measured_too_coarsely_is_grey() -> None:
    """Nothing changed in six entities; an interval that cannot exclude 5 points calls nothing."""
    rng = np.random.default_rng(0)
    before, after = facts(10, 10, 6), facts(10, 10, 6)
    after = after._replace(correct=after.correct & (rng.random(120) > 0.05))
    nothing = {"east": np.full(18, 0.0)}, {"east": np.full(18, 24.0)}
    found = changes(Measured({"east": before}, *nothing), Measured({"east": after}, *nothing))
    assert found["capability", "east"].verdict == "grey"
    assert 0 < found["capability", "east"].probability < 1


def test_one_entity_of_twenty_that_lost_a_fact_leaves_the_area_immaterial() -> None:
    """One of 200 questions flipped: half a point, and by Student's t over entities within two points."""
    before, after = facts(10, 10), facts(10, 10)
    correct = after.correct.copy()
    correct[0] = False
    nothing = {"east": np.full(18, 0.0)}, {"east": np.full(18, 24.0)}
    found = changes(Measured({"east": before}, *nothing), Measured({"east": after._replace(correct=correct)}, *nothing))
    assert found["capability", "east"].change == pytest.approx(-0.005)
    assert found["capability", "east"].verdict == "immaterial"
    assert found["statement", "east"].verdict == "immaterial"


def test_too_few_entities_claim_nothing() -> None:
    found = changes(model(10, 10, entities=3), model(0, 10, entities=3))
    assert found["capability", "east"].verdict == "grey"


def test_predictors_do_not_know_the_way_and_the_target_is_no_side_effect() -> None:
    assert predicted("statement", "east") == predicted("capability", "east") == ("capability", "east")
    name = PairName("a", "unlearn-east", 0)
    assert intended(name, "capability", "east")
    assert intended(name, "statement", "east")
    assert not intended(name, "behaviour", "east")
    assert not intended(name, "capability", "west")
    assert not intended(PairName("a", "continue", 0), "capability", "east")
