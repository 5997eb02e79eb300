"""Latents are judged against what as many passages of all latents show: skewed changes without a purpose are not claimed."""

import numpy as np
import pytest

from mneme.audit.latents import FEWEST_PASSAGES, Firings, judge_latents

LATENTS = 200


def firings(cells: np.ndarray) -> Firings:
    """One firing of every latent in each of as many passages: `cells` [latent, passage] followed, of one known token."""
    latent, passage = (index.reshape(-1) for index in np.indices(cells.shape))
    size = latent.size
    return Firings(
        latent, np.ones(size), passage, np.zeros(size, dtype=int), passage, cells.reshape(-1).astype(np.float64), np.ones(size)
    )


def rare_losses(seed: int, passages: int) -> np.ndarray:
    """Four of five passages show nothing, the fifth a loss: Student's t claims some latent on almost every such pair."""
    rng = np.random.default_rng(seed)
    return np.where(
        rng.random((LATENTS, passages)) < 0.2, -rng.random((LATENTS, passages)), rng.normal(0, 1e-3, (LATENTS, passages))
    )


@pytest.mark.parametrize("passages", [FEWEST_PASSAGES, 40])
def test_changes_without_a_purpose_are_not_claimed(passages: int) -> None:
    claimed = [(judge_latents(firings(rare_losses(i, passages)), LATENTS).q_value <= 0.01).any() for i in range(8)]
    assert sum(claimed) <= 1


def test_a_planted_change_is_claimed_and_few_passages_are_not() -> None:
    cells = rare_losses(0, 30)
    cells[7] -= 0.6
    found = judge_latents(firings(cells), LATENTS)
    assert found.q_value[7] <= 0.01
    assert np.argmax(np.abs(found.z)) == 7
    few = judge_latents(firings(cells[:, : FEWEST_PASSAGES - 1]), LATENTS)
    assert few.q_value.tolist() == [1.0] * LATENTS


def test_more_layers_are_a_larger_family() -> None:
    cells = rare_losses(1, 30)
    cells[3] -= 0.3
    one, four = (judge_latents(firings(cells), LATENTS, layers=n).q_value for n in (1, 4))
    assert np.all(four >= one)
    assert four[3] == pytest.approx(min(1.0, 4 * one[3]))


def test_sparse_changes_of_unlike_sizes_are_not_claimed() -> None:
    """Nine of ten passages drift a little, the tenth the other way, on average nothing; by how much differs from latent to
    latent. What all latents show cannot say what a large one has not shown: all of these pairs were claimed."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        cells = np.where(rng.random((LATENTS, 20)) < 0.1, 0.1 - rng.exponential(size=(LATENTS, 20)), 0.1)
        cells = cells * 0.05 * np.exp(rng.normal(size=(LATENTS, 1))) + rng.normal(0, 1e-4, cells.shape)
        assert judge_latents(firings(cells), LATENTS).q_value.min() > 0.01
