import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mneme.dictionaries.topk import batch_topk, flat_above, group_order, next_guess, row_dots, weighted_row_sums
from mneme.errors import BadOption


def plain(scores: Tensor, n_keep: int) -> tuple[Tensor, Tensor]:
    """Reference: sort everything, drop what is not positive."""
    top = scores.reshape(-1).sort(descending=True, stable=True)
    index = top.indices[:n_keep][top.values[:n_keep] > 0].sort().values
    return index, scores.reshape(-1)[index]


@given(
    seed=st.integers(0, 10_000),
    n_keep=st.integers(0, 60),
    guess=st.one_of(st.none(), st.floats(0.0, 5.0)),
    ties=st.booleans(),
)
def test_the_selection_is_exact_whatever_the_guess(seed: int, n_keep: int, guess: float | None, ties: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    products = torch.randn(7, 6, generator=generator)
    products = products.round() if ties else products
    bias, size = torch.zeros(6), torch.ones(6)
    chosen = batch_topk(products, bias, size, n_keep, guess=guess)
    index, values = plain(products, n_keep)
    assert torch.equal(chosen.flat_index, index)
    assert torch.equal(chosen.code, values)
    assert chosen.floor == (float(values.min()) if n_keep and values.numel() == n_keep else 0.0)


@given(seed=st.integers(0, 10_000), n_keep=st.integers(1, 30))
def test_bias_and_size_rank_but_codes_keep_their_units(seed: int, n_keep: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    products, bias = torch.randn(7, 6, generator=generator), torch.randn(6, generator=generator)
    size = torch.rand(6, generator=generator) + 0.1
    chosen = batch_topk(products, bias, size, n_keep)
    index, _ = plain((products + bias) * size, n_keep)
    assert torch.equal(chosen.flat_index, index)
    assert torch.equal(chosen.code, (products + bias).reshape(-1)[index])


def test_a_large_matrix_needs_few_candidates_and_stays_exact() -> None:
    products = torch.randn(400, 500, generator=torch.Generator().manual_seed(1))
    zeros, ones = torch.zeros(500), torch.ones(500)
    first = batch_topk(products, zeros, ones, 1000)
    again = batch_topk(products, zeros, ones, 1000, guess=next_guess(first.floor))
    assert torch.equal(first.flat_index, plain(products, 1000)[0])
    assert torch.equal(first.flat_index, again.flat_index)


def test_places_above_a_bound_are_those_of_a_loop() -> None:
    values, bound = torch.tensor([[1.0, 5.0], [2.0, 4.0], [3.0, 6.0]]), torch.tensor([1.0, 4.5])
    expected = [row * 2 + column for row in range(3) for column in range(2) if values[row, column] > bound[column]]
    assert flat_above(values, bound).tolist() == expected == [1, 2, 4, 5]
    assert flat_above(values.T, bound[:1].expand(3)).tolist() == [1, 2, 3, 4, 5]  # not contiguous: places of what is seen


def test_negative_k_is_refused() -> None:
    with pytest.raises(BadOption, match="Cannot keep -1 codes"):
        batch_topk(torch.ones(1, 1), torch.zeros(1), torch.ones(1), -1)


def test_sparse_products_equal_the_dense_ones() -> None:
    generator = torch.Generator().manual_seed(2)
    dense = torch.rand(9, 5, generator=generator) * (torch.rand(9, 5, generator=generator) < 0.3)
    dense[3] = 0
    rows, other = torch.randn(5, 4, generator=generator), torch.randn(9, 4, generator=generator)
    token, latent = dense.nonzero(as_tuple=True)
    value = dense[token, latent]
    torch.testing.assert_close(weighted_row_sums(rows, latent, token, value, 9), dense @ rows)
    order = group_order(latent, 5)
    torch.testing.assert_close(weighted_row_sums(other, token[order], latent[order], value[order], 5), dense.T @ other)
    torch.testing.assert_close(row_dots(other, rows, token, latent), (other @ rows.T)[token, latent])


def test_no_codes_at_all() -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert torch.equal(weighted_row_sums(torch.ones(3, 2), none, none, torch.empty(0), 4), torch.zeros(4, 2))
    assert row_dots(torch.ones(3, 2), torch.ones(3, 2), none, none).numel() == 0
