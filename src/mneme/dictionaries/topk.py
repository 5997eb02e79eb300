"""Exact BatchTopK selection and the sparse products of a crosscoder, so that only the encoder product is dense.

BatchTopK (Bussmann, Leask & Nanda 2024, arXiv 2412.06410) keeps the `k * batch` largest scores of a whole batch. A sort of all
batch x latents is avoided: a threshold guessed from the last step (or from a sample) leaves few candidates, the exact top is
taken among them, and the guess is checked (fewer candidates than wanted: guess lower). The result is always exact.

Sparse products are weighted sums of rows (`embedding_bag`), about `codes * d` multiply-adds each and no batch x latent buffer.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from mneme.errors import BadOption

_GUESS_MARGIN = 0.97
_SAMPLE = 1 << 16


@dataclass(frozen=True)
class SparseCodes:
    """Non-zero codes: `value[i]` is the code of latent `latent_index[i]` at token `token_index[i]`, tokens ascending."""

    token_index: Int[Tensor, " code"]
    latent_index: Int[Tensor, " code"]
    value: Float[Tensor, " code"]


@dataclass(frozen=True)
class Selection:
    """What BatchTopK keeps: flat positions in the score matrix (ascending), their codes, the smallest score kept."""

    flat_index: Int[Tensor, " code"]
    code: Float[Tensor, " code"]
    floor: float
    """0.0 where fewer than `n_keep` scores were positive."""


def batch_topk(
    products: Float[Tensor, "token latent"],
    bias: Float[Tensor, " latent"],
    size: Float[Tensor, " latent"],
    n_keep: int,
    *,
    guess: float | None = None,
) -> Selection:
    """Keeps the `n_keep` largest positive scores (products + bias) * size of the matrix, exactly; codes are products + bias.

    Bias and size (> 0) are folded into the threshold, so that the matrix is read once and never written. `guess` is a score
    thought to lie just below the smallest kept one (`next_guess` of the step before); it changes the time taken, never the
    result. Of scores that tie at the floor, the first are kept. Error: BadOption for a negative `n_keep`.
    """
    if n_keep < 0:
        raise BadOption(f"Cannot keep {n_keep} codes: expected 0 or more.")
    if n_keep == 0 or products.numel() == 0:
        return Selection(_no_index(products), products.new_empty(0), 0.0)
    threshold = _sample_guess(products, bias, size, n_keep) if guess is None else max(guess, 0.0)
    index, code, score = _above(products, bias, size, threshold)
    for lower in (0.8 * threshold, 0.0):
        if index.numel() < n_keep and threshold > 0.0:
            threshold = lower
            index, code, score = _above(products, bias, size, threshold)
    if index.numel() <= n_keep:
        return Selection(index, code, float(score.min()) if index.numel() == n_keep else 0.0)
    floor = score.topk(n_keep, sorted=False).values.min()
    kept = (score >= floor).nonzero().squeeze(1)
    if kept.numel() > n_keep:
        tied = (score[kept] == floor).nonzero().squeeze(1)
        stays = torch.ones_like(kept, dtype=torch.bool)
        stays[tied[n_keep - kept.numel() :]] = False
        kept = kept[stays]
    return Selection(index[kept], code[kept], float(floor))


def next_guess(floor: float) -> float | None:
    """A guess for the following batch from this batch's floor: a little lower; None (take a sample) where the floor is 0."""
    return floor * _GUESS_MARGIN if floor > 0.0 else None


def _no_index(like: Float[Tensor, "token latent"]) -> Int[Tensor, " code"]:
    return torch.empty(0, dtype=torch.int64, device=like.device)


def _above(
    products: Float[Tensor, "token latent"],
    bias: Float[Tensor, " latent"],
    size: Float[Tensor, " latent"],
    threshold: float,
) -> tuple[Int[Tensor, " code"], Float[Tensor, " code"], Float[Tensor, " code"]]:
    """Flat position, code and score of the positive scores above about `threshold` (to rounding: never relied upon)."""
    index = flat_above(products, threshold / size - bias)
    latent = index % products.shape[1]
    code = products.reshape(-1)[index] + bias[latent]
    score = code * size[latent]
    if threshold == 0.0:
        positive = score > 0
        return index[positive], code[positive], score[positive]
    return index, code, score


def flat_above(values: Float[Tensor, "token latent"], bound: Float[Tensor, " latent"]) -> Int[Tensor, " code"]:
    """Flat positions of the values above their latent's bound, ascending. On the CPU by NumPy, which compares and looks for
    few hits among many places five times as fast as torch (docs/log.md, 28 November, two at once)."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(values.detach().numpy() > bound.detach().numpy()))
    return (values > bound).reshape(-1).nonzero().squeeze(1)


def _sample_guess(
    products: Float[Tensor, "token latent"], bias: Float[Tensor, " latent"], size: Float[Tensor, " latent"], n_keep: int
) -> float:
    stride = max(1, products.numel() // _SAMPLE)
    index = torch.arange(0, products.numel(), stride, device=products.device)
    latent = index % products.shape[1]
    sample = (products.reshape(-1)[index] + bias[latent]) * size[latent]
    rank = min(sample.numel(), int(1.2 * n_keep / stride) + 8)
    return max(0.0, float(sample.topk(rank, sorted=False).values.min()))


def group_order(group: Int[Tensor, " code"], n_groups: int) -> Int[Tensor, " code"]:
    """A stable permutation that sorts codes by group. On the CPU a 16-bit radix sort where it fits."""
    if group.device.type == "cpu" and n_groups <= 1 << 16:
        return torch.from_numpy(np.argsort(group.numpy().astype(np.uint16), kind="stable"))
    return group.argsort(stable=True)


def weighted_row_sums(
    rows: Float[Tensor, "row d"],
    row_index: Int[Tensor, " code"],
    group_index: Int[Tensor, " code"],
    weight: Float[Tensor, " code"],
    n_groups: int,
) -> Float[Tensor, "group d"]:
    """out[g] = sum over codes i with group_index[i] = g of weight[i] * rows[row_index[i]]; `group_index` must ascend.

    This one product is the decoder (groups = tokens, rows = decoder directions) and both weight gradients (groups = latents,
    rows = tokens).
    """
    if row_index.numel() == 0:
        return rows.new_zeros(n_groups, rows.shape[1])
    starts = torch.searchsorted(group_index, torch.arange(n_groups, device=group_index.device))
    return embedding_bag(row_index, rows, starts, mode="sum", per_sample_weights=weight)


def row_dots(
    left: Float[Tensor, "left d"],
    right: Float[Tensor, "right d"],
    left_index: Int[Tensor, " code"],
    right_index: Int[Tensor, " code"],
) -> Float[Tensor, " code"]:
    """<left[left_index[i]], right[right_index[i]]> for every i, nothing gathered: the gradient of a sparse code.

    `left_index` must ascend, and `right_index` ascend and not repeat within one left row, as the codes of a batch do.
    """
    if left_index.numel() == 0:
        return left.new_empty(0)
    starts = torch.searchsorted(left_index, torch.arange(left.shape[0] + 1, device=left.device))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        pattern = torch.sparse_csr_tensor(
            starts, right_index, left.new_zeros(left_index.numel()), (left.shape[0], right.shape[0]), check_invariants=False
        )
    dots: Tensor = torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()
    return dots
