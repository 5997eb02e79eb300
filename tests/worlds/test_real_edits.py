"""Edits of weights without data, by hand and by law."""

import pytest
import torch
from torch import Tensor

from mneme.worlds.real.edits import mean_weights, noise, permuted, prune, rounded, scaled


def weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"model.embed_tokens.weight": (10, 8), "model.layers.0.mlp.up_proj.weight": (16, 64), "model.norm.weight": (8,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


MATRIX = "model.layers.0.mlp.up_proj.weight"


def test_noise_has_its_size_and_only_matrices_get_it() -> None:
    base = weights()
    found = noise(base, 0.1, seed=1)
    assert float((found[MATRIX] - base[MATRIX]).norm() / base[MATRIX].norm()) == pytest.approx(0.1, rel=0.05)
    assert all(torch.equal(found[name], base[name]) for name in base if name != MATRIX)
    assert torch.equal(found[MATRIX], noise(base, 0.1, seed=1)[MATRIX])
    assert not torch.equal(found[MATRIX], noise(base, 0.1, seed=2)[MATRIX])


def test_pruning_takes_the_smallest() -> None:
    found = prune({MATRIX: torch.tensor([[1.0, -0.1, 0.5], [-2.0, 0.2, 3.0]])}, 1 / 3)[MATRIX]
    assert found.tolist() == [[1.0, 0.0, 0.5], [-2.0, 0.0, 3.0]]
    assert torch.equal(prune(weights(), 0.0)[MATRIX], weights()[MATRIX])


def test_rounding_has_few_values_and_an_error_of_half_a_step() -> None:
    base = weights()
    found = rounded(base, 4)[MATRIX]
    step = base[MATRIX].abs().amax(-1, keepdim=True) / 7
    assert float(((found - base[MATRIX]).abs() / step).max()) <= 0.5 + 1e-4
    assert len(torch.unique((found / step).round())) <= 16
    assert torch.equal(rounded(base, 4)["model.norm.weight"], base["model.norm.weight"])


def test_scaling_and_merging_are_linear() -> None:
    base, tuned = weights(0), weights(1)
    assert all(torch.equal(scaled(base, tuned, 0.0)[name], base[name]) for name in base)
    assert all(torch.allclose(scaled(base, tuned, 1.0)[name], tuned[name], atol=1e-6) for name in base)
    mean, half = mean_weights(base, [base, tuned]), scaled(base, tuned, 0.5)
    assert all(torch.allclose(mean[name], half[name], atol=1e-6) for name in base)


def test_a_shuffled_change_has_the_same_entries_in_other_places() -> None:
    base, tuned = weights(0), weights(1)
    found = permuted(base, tuned, seed=3)
    for name in base:
        before, after = (tuned[name] - base[name]).flatten(), (found[name] - base[name]).flatten()
        assert torch.allclose(before.sort().values, after.sort().values, atol=1e-5)
    assert not torch.allclose(tuned[MATRIX], found[MATRIX])
