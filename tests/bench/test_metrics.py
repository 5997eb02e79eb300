"""Figures of merit by hand, and their intervals."""

import numpy as np
import pytest

from mneme.bench.metrics import (
    Judged,
    auroc,
    average_precision,
    differences,
    estimates,
    expected_calibration_error,
    figures,
)
from tests import laws


def ones(count: int) -> np.ndarray:
    return np.ones((1, count))


def test_auroc_by_hand_with_ties() -> None:
    """True at 0.9 and 0.5, false at 0.5 and 0.1: of four comparisons three are won and one is tied."""
    score, true = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    assert auroc(score, true, ones(4)) == 3.5 / 4
    assert auroc(np.full(4, 0.3), true, ones(4)) == 0.5
    assert auroc(-score, true, ones(4)) == 0.5 / 4


def test_auroc_without_one_kind_has_no_value() -> None:
    assert np.isnan(auroc(np.array([0.2, 0.3]), np.array([True, True]), ones(2)))
    assert np.isnan(auroc(np.array([0.2, 0.3]), np.array([False, False]), ones(2)))


def test_auroc_is_the_share_of_pairs_won() -> None:
    generator = np.random.default_rng(0)
    score, true = generator.integers(0, 8, 60) / 8, generator.random(60) < 0.4
    won = [(a > b) + 0.5 * (a == b) for a in score[true] for b in score[~true]]
    assert auroc(score, true, ones(60)) == pytest.approx(np.mean(won))


def test_average_precision_by_hand() -> None:
    """From the top: true (1/1), false, true (2/3), and a tie of one true and one false at the end (3/5)."""
    score = np.array([0.9, 0.8, 0.7, 0.1, 0.1])
    true = np.array([True, False, True, True, False])
    assert average_precision(score, true, ones(5)) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert np.isnan(average_precision(score, np.zeros(5, dtype=bool), ones(5)))


def test_calibration_error_by_hand() -> None:
    """Bin 0.1-0.2: two cells at 0.1 and 0.15, one true: |0.25 - 1|; last bin: 0.95 and 1.0, both true: |1.95 - 2|."""
    probability = np.array([0.1, 0.15, 0.95, 1.0])
    true = np.array([True, False, True, True])
    assert expected_calibration_error(probability, true, ones(4)) == pytest.approx((0.75 + 0.05) / 4)
    assert expected_calibration_error(true.astype(float), true, ones(4)) == 0.0


def judged(probability: list[float], material: list[int], pair: list[int], right: list[int] | None = None) -> Judged:
    return Judged(
        np.array(probability),
        np.array(material, dtype=bool),
        np.array(right or [1] * len(probability), dtype=bool),
        np.array(pair),
    )


def test_figures_by_hand() -> None:
    """2 hits (one with the wrong direction), 1 miss, 1 false alarm, 4 right silences."""
    one = judged([0.9, 0.5, 0.1, 0.6, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0], [0] * 8, [1, 0, 1, 1, 1, 1, 1, 1])
    found = figures(one, ones(8))
    assert found["accuracy"] == 6 / 8
    assert found["precision"] == found["recall"] == found["F1"] == pytest.approx(2 / 3)
    assert found["false alarms"] == pytest.approx(1 / 5)
    assert found["balanced accuracy"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["direction"] == 0.5
    assert found["Brier"] == pytest.approx((0.01 + 0.25 + 0.81 + 0.36) / 8)


def test_figures_without_a_material_cell() -> None:
    found = estimates(judged([0.1, 0.2], [0, 0], [0, 1]), seed=0)
    assert not {"recall", "AUROC", "average precision", "direction", "precision"} & set(found)
    assert found["accuracy"].value == 1
    assert found["false alarms"].value == 0


def test_interval_comes_from_pairs_not_cells() -> None:
    """Two pairs of 50 equal cells: one all right, one all wrong. Drawing cells would say 0.4 to 0.6; pairs say 0 to 1."""
    one = judged([0.9] * 50 + [0.1] * 50, [1] * 100, [0] * 50 + [1] * 50)
    found = estimates(one, seed=0)["accuracy"]
    assert (found.value, found.low, found.high, found.n) == (0.5, 0.0, 1.0, 2)


def test_weights_count_cells_as_often() -> None:
    """A row of weights says what the figure of the repeated cells is."""
    generator = np.random.default_rng(1)
    one = judged(list(generator.integers(0, 10, 30) / 10), list(generator.integers(0, 2, 30)), list(range(30)))
    weights = generator.integers(0, 4, (5, 30))
    many = figures(one, weights.astype(float))
    for row in range(5):
        again = Judged(*(np.repeat(column, weights[row]) for column in one if column is not None))
        plain = figures(again, np.ones((1, len(again.pair))))
        assert {name: value[row] for name, value in many.items()} == pytest.approx(
            {name: value[0] for name, value in plain.items()}, nan_ok=True
        )


def test_difference_is_paired() -> None:
    """Both miss the same pairs, the one misses one cell more in each: the difference has no spread, though each alone has."""
    material = [1, 1, 1, 1] * 10
    pair = [i // 4 for i in range(40)]
    bad = [i % 2 for i in range(10)]
    first = judged([0.1 if bad[i // 4] and i % 4 == 0 else 0.9 for i in range(40)], material, pair)
    second = judged([0.1 if i % 4 == 1 or (bad[i // 4] and i % 4 == 0) else 0.9 for i in range(40)], material, pair)
    gap = differences(first, second, seed=0)["recall"]
    laws.planted([gap.value, gap.low, gap.high], [0.25, 0.25, 0.25], within=1e-12)
    assert estimates(second, seed=0)["recall"].low < 0.65


def test_determinism() -> None:
    one = judged([0.9, 0.1, 0.6, 0.3], [1, 0, 1, 1], [0, 0, 1, 1])
    laws.determinism(lambda: estimates(one, seed=5))
