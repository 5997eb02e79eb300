"""Calibration never sees the world it is judged on, and the figures follow from the cells."""

import math

import numpy as np
import pytest

from mneme.bench.judging import PARTS, fit_audit, judged, placed_cells, platt, score_all, usual_direction
from mneme.bench.pairs import SCENARIOS, PairName, chosen_pairs, pairs_of
from mneme.errors import BadOption
from tests.bench.sample import pair

PAIRS = [pair(name) for name in chosen_pairs(["a", "b", "c"], "all")]


def test_every_world_has_its_fine_tunes() -> None:
    for world in "abcd":
        names = pairs_of(world)
        assert len(names) == len(set(names)) == 18
        assert {name.scenario for name in names} == {"unlearning", "misalignment", "benign", "null"}
    assert {name.name for name in pairs_of("a")} != {name.name for name in pairs_of("c")}


def test_the_tied_area_is_unlearned_by_both_methods() -> None:
    names = {name.name for name in pairs_of("a")}
    assert {"unlearn-biology", "graddiff-biology"} <= names


def test_worlds_that_cannot_judge_each_other() -> None:
    with pytest.raises(BadOption, match="at least two different ones"):
        chosen_pairs(["a"], "all")
    with pytest.raises(BadOption, match="No scenario 'chaos': expected one of unlearning"):
        chosen_pairs(["a", "b"], "chaos")


def test_a_world_is_judged_by_the_others_alone() -> None:
    """The effects of world a are a hundred times those of b and c. Curves that had seen a would be moved by it; with b and c
    alone they are what b and c give, and a's smallest change looks material to them."""
    names = chosen_pairs(["a", "b", "c"], "all")
    large = [pair(name, 100.0 if name.world == "a" else 1.0) for name in names]
    cells = placed_cells(large)
    _, curves = judged(cells, "mneme")
    others = fit_audit([placed.cell for placed in cells if placed.world != "a"])
    assert {curve.curve: curve.midpoint for curve in curves if curve.judged == "a"} == {
        name: curve.midpoint for name, curve in others.items()
    }
    plain, _ = judged(placed_cells(PAIRS), "mneme")
    shifted, _ = judged(cells, "mneme")
    here = np.array([placed.world == "a" for placed in cells])
    assert (shifted.probability[here] >= plain.probability[here]).all()
    assert shifted.probability[here].mean() > plain.probability[here].mean() + 0.1


def test_truth_of_the_judged_world_does_not_reach_its_own_curve() -> None:
    """Turning over every truth of world a changes nothing of what is said of a."""
    turned = [
        one.model_copy(
            update={"cells": [cell.model_copy(update={"material": not cell.material}) for cell in one.cells]}
            if one.world == "a"
            else {}
        )
        for one in PAIRS
    ]
    here = np.array([placed.world == "a" for placed in placed_cells(PAIRS)])
    for predictor in ("mneme", "blind"):
        before, _ = judged(placed_cells(PAIRS), predictor)
        after, _ = judged(placed_cells(turned), predictor)
        assert np.array_equal(before.probability[here], after.probability[here])
        assert not np.array_equal(before.probability[~here], after.probability[~here])


def test_scores_by_scenario() -> None:
    scores, curves = score_all(PAIRS, seed=0)
    found = {(score.scenario, score.predictor): score for score in scores}
    assert set(score.scenario for score in scores) == {"all", *SCENARIOS, *PARTS} - {"facts told"}
    whole = found["all", "mneme"]
    assert whole.cells == 54 * 8
    assert whole.pairs == 54
    # Six unlearned areas and their neighbours, three harmful ones in four areas, in three worlds.
    assert whole.material == 3 * (6 * 2 + 3 * 4)
    assert found["all", "exact"].figures["F1"].value == found["all", "exact"].figures["accuracy"].value == 1.0
    assert found["all", "mneme"].figures["F1"].value > 0.95
    assert found["all", "blind"].below["AUROC"].low > 0.2
    assert found["null", "mneme"].figures["false alarms"].value == 0.0
    assert "recall" not in found["null", "mneme"].figures
    assert len(curves) == 9


def test_usual_direction() -> None:
    assert usual_direction([cell for one in PAIRS for cell in one.cells]) == {"knowledge": -1, "behaviour": 1}


def test_grey_cells_count_for_the_brier_score_alone() -> None:
    """Cells that no measurement called move no other figure and no curve, whatever is said of them."""
    grey = [
        one.model_copy(
            update={
                "cells": [
                    *one.cells,
                    *(
                        cell.model_copy(update={"grey": True, "material": False, "beyond": 0.5, "area": f"{cell.area} again"})
                        for cell in one.cells
                    ),
                ]
            }
        )
        for one in PAIRS
    ]
    before, curves = score_all(PAIRS, seed=0)
    after, curves_after = score_all(grey, seed=0)
    assert curves == curves_after
    for one, other in zip(before, after, strict=True):
        assert (one.scenario, one.predictor, one.cells, one.material) == (
            other.scenario,
            other.predictor,
            other.cells,
            other.material,
        )
        for name in one.figures.keys() - {"Brier"}:
            assert one.figures[name].value == pytest.approx(other.figures[name].value), (one.scenario, one.predictor, name)
    exact = next(score for score in after if (score.scenario, score.predictor) == ("all", "exact"))
    assert exact.figures["Brier"].value == pytest.approx(0.5 * 0.25)


def test_platt_finds_a_known_curve_again() -> None:
    generator = np.random.default_rng(0)
    size = np.exp(generator.normal(0.0, 1.5, 4000))
    material = generator.random(4000) < 1 / (1 + (size / 2.0) ** -1.5)
    fitted = platt(size, material)
    assert fitted.slope == pytest.approx(1.5, rel=0.1)
    assert math.exp(-fitted.offset / fitted.slope) == pytest.approx(2.0, rel=0.1)
    assert fitted.probability(2.0) == pytest.approx(0.5, abs=0.03)


def test_platt_of_a_score_without_information_says_the_rate() -> None:
    material = np.arange(500) % 10 == 0
    assert platt(np.full(500, 0.3), material).probability(0.3) == pytest.approx(0.1, abs=0.01)
    assert platt(np.zeros(500), material).probability(0.0) == pytest.approx(0.1, abs=0.01)


def test_names() -> None:
    name = PairName("a", "unlearn-biology", 0)
    assert (name.kind, name.area, name.scenario, str(name)) == ("unlearn", "biology", "unlearning", "a unlearn-biology seed 0")
    assert PairName("a", "identical", 0).area == ""
