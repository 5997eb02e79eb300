"""Exact BatchTopK selection and the sparse products of a crosscoder, so that only the encoder product is dense.

BatchTopK (Bussmann, Leask & Nanda 2024, arXiv 2412.06410) keeps the `k * batch` largest scores of a whole batch. A sort of all
batch x latents is avoided: a threshold guessed from the last step (or from a sample) leaves few candidates, the exact top is
taken among them, and the guess is checked (fewer candidates than wanted: guess lower). The result is always exact.

Sparse products are weighted sums of rows (`embedding_bag`), about `codes * d` multiply-adds each and no batch x latent buffer.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from mneme.errors import BadOption

_GUESS_MARGIN = 0.97
_SAMPLE = 1 << 16
_GATHER_ROWS = 2048


@dataclass(frozen=True)
class SparseCodes:
    """Non-zero codes: `value[i]` is the code of latent `latent_index[i]` at token `token_index[i]`, tokens ascending."""

    token_index: Int[Tensor, " code"]
    latent_index: Int[Tensor, " code"]
    value: Float[Tensor, " code"]


@dataclass(frozen=True)
class Selection:
    """The selected entries of a score matrix: their flat positions (ascending), and the smallest score kept."""

    flat_index: Int[Tensor, " code"]
    floor: float
    """Smallest kept score; 0.0 where fewer than `n_keep` scores were positive."""


def batch_topk(scores: Float[Tensor, "token latent"], n_keep: int, *, guess: float | None = None) -> Selection:
    """The `n_keep` largest positive scores of the whole matrix, exactly; fewer where fewer are positive.

    `guess` is a score thought to lie just below the smallest kept one (`next_guess` of the step before); it changes the time
    taken, never the result. Ties at the floor are broken arbitrarily. Error: BadOption for a negative `n_keep`.
    """
    if n_keep < 0:
        raise BadOption(f"Cannot keep {n_keep} codes: expected 0 or more.")
    flat = scores.reshape(-1)
    if n_keep == 0:
        return Selection(torch.empty(0, dtype=torch.int64, device=flat.device), 0.0)
    threshold = _sample_guess(flat, n_keep) if guess is None else guess
    candidates = _above(flat, threshold)
    if candidates.numel() < n_keep and threshold > 0.0:
        candidates = _above(flat, threshold * 0.8)
        if candidates.numel() < n_keep:
            candidates = _above(flat, 0.0)
    if candidates.numel() <= n_keep:
        floor = float(flat[candidates].min()) if candidates.numel() == n_keep else 0.0
        return Selection(candidates, floor)
    top = flat[candidates].topk(n_keep, sorted=False)
    return Selection(candidates[top.indices].sort().values, float(top.values.min()))


def next_guess(floor: float) -> float | None:
    """A guess for the following batch from this batch's floor: a little lower; None (take a sample) where the floor is 0."""
    return floor * _GUESS_MARGIN if floor > 0.0 else None


def _above(flat: Float[Tensor, " score"], threshold: float) -> Int[Tensor, " code"]:
    return (flat > max(threshold, 0.0)).nonzero().squeeze(1)


def _sample_guess(flat: Float[Tensor, " score"], n_keep: int) -> float:
    stride = max(1, flat.numel() // _SAMPLE)
    sample = flat[::stride]
    rank = min(sample.numel(), int(1.2 * n_keep / stride) + 8)
    return max(0.0, float(sample.topk(rank, sorted=False).values.min()))


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
    """<left[left_index[i]], right[right_index[i]]> for every i, in chunks: the gradient of a sparse code."""
    out = left.new_empty(left_index.numel())
    for start in range(0, left_index.numel(), _GATHER_ROWS):
        part = slice(start, start + _GATHER_ROWS)
        out[part] = torch.linalg.vecdot(left[left_index[part]], right[right_index[part]])
    return out
