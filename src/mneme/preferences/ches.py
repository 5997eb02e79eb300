"""CHES: which preference pairs will lower the probability of their own preferred answer (likelihood displacement).

Razin et al. 2025 (arXiv 2410.08847), definition 2. With h the residual stream after the final norm (what the head reads) at
the positions that predict the tokens of an answer, and S+ and S- its sums over the chosen and the rejected answer:
CHES = <S+, S-> - |S+|^2, and length-normalised ln-CHES = <S+/n+, S-/n-> - |S+/n+|^2. High means: expect displacement.

Where we differ: the published code runs one pair at a time with all logits, and batched it takes padding for text. Here
pairs run in batches without logits and what both answers of a pair begin with runs once, exactly. `edit_similarity` and
`last_hidden_similarity` are the paper's baselines, which tell less.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mneme.models.architecture import Parts
from mneme.models.hooks import read
from mneme.models.sampling import left_padded
from mneme.preferences.pairs import EncodedPair, common_prefix

BATCH_TOKENS = 4096


@dataclass(frozen=True)
class PairSums:
    """What every score of a pair is made of; hidden states after the final norm, float32."""

    chosen: Float[Tensor, "pair d_model"]
    rejected: Float[Tensor, "pair d_model"]
    """Sums over the positions that predict the answer's tokens: last prompt token to last but one token."""
    chosen_tokens: Int[Tensor, " pair"]
    rejected_tokens: Int[Tensor, " pair"]
    chosen_last: Float[Tensor, "pair d_model"]
    rejected_last: Float[Tensor, "pair d_model"]
    """At the position that predicts the answer's last token (its end-of-text token where it has one)."""


def ches(chosen_sum: Float[Tensor, "*pair d_model"], rejected_sum: Float[Tensor, "*pair d_model"]) -> Float[Tensor, "*pair"]:
    """<S+, S-> - |S+|^2. Long rejected answers score high whatever they say: use `ln_ches` where lengths differ."""
    return (chosen_sum * (rejected_sum - chosen_sum)).sum(-1)


def ln_ches(
    chosen_sum: Float[Tensor, "*pair d_model"],
    rejected_sum: Float[Tensor, "*pair d_model"],
    chosen_tokens: Int[Tensor, "*pair"],
    rejected_tokens: Int[Tensor, "*pair"],
) -> Float[Tensor, "*pair"]:
    """The same of means over the answers' tokens: 0 where they read alike to the head, below 0 where they do not."""
    return ches(chosen_sum / chosen_tokens[..., None], rejected_sum / rejected_tokens[..., None])


def last_hidden_similarity(
    chosen_last: Float[Tensor, "*pair d_model"], rejected_last: Float[Tensor, "*pair d_model"]
) -> Float[Tensor, "*pair"]:
    """Inner product of the states at the end of the two answers (a baseline of the paper)."""
    return (chosen_last * rejected_last).sum(-1)


def edit_similarity(one: Sequence[int], other: Sequence[int]) -> float:
    """1 - Levenshtein distance / longer length, over token ids: 1 for equal answers, 0 for answers without a common token."""
    if not len(one) or not len(other):
        return float(len(one) == len(other))
    target = np.asarray(other)
    steps = np.arange(len(target) + 1)
    row = steps.copy()
    for n, token in enumerate(one, 1):
        above = np.empty_like(row)
        above[0] = n
        above[1:] = np.minimum(row[1:] + 1, row[:-1] + (target != token))
        row = np.minimum.accumulate(above - steps) + steps  # insertions, from left to right
    return 1.0 - float(row[-1]) / max(len(one), len(target))


def masked_sums(
    hidden: Float[Tensor, "batch seq d_model"], predicts: Bool[Tensor, "batch seq"]
) -> Float[Tensor, "batch d_model"]:
    """Sums of `hidden` where `predicts`, float32: indifferent to what stands elsewhere, padding on either side included."""
    kept = torch.where(predicts[..., None], hidden.float(), 0.0)
    return kept.sum(1)


@torch.no_grad()
def pair_sums(parts: Parts, pairs: Sequence[EncodedPair], *, batch_tokens: int = BATCH_TOKENS) -> PairSums:
    """Hidden sums of every pair: batched by length, no logits, and one pass over what both answers begin with.

    The cost is one forward pass of the blocks over prompt + both answers. Law: padding (batching, order, and the tokenizer's
    padding side do not matter).
    """
    if not pairs:
        raise ValueError("pair_sums needs at least one pair")
    shared = [_shared(pair) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda i: (shared[i], _suffix(pairs[i], shared[i])))
    found = torch.zeros(4, len(pairs), parts.width)
    for batch in _batches(order, pairs, shared, batch_tokens):
        found[:, batch] = _batch_sums(parts, [pairs[i] for i in batch], [shared[i] for i in batch]).cpu()
    lengths = [
        torch.tensor([len(answer) for answer in side]) for side in ([p.chosen for p in pairs], [p.rejected for p in pairs])
    ]
    return PairSums(found[0], found[1], lengths[0], lengths[1], found[2], found[3])


def _shared(pair: EncodedPair) -> int:
    """Tokens that both rows begin with and whose states both need: the last token of a row predicts nothing."""
    same = common_prefix(pair.chosen, pair.rejected)
    return len(pair.prompt) + min(same, len(pair.chosen) - 1, len(pair.rejected) - 1)


def _suffix(pair: EncodedPair, shared: int) -> int:
    """Tokens of the longer answer that run after the shared ones; its last token predicts nothing and does not run."""
    return len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)) - 1 - shared


def _batches(order: Sequence[int], pairs: Sequence[EncodedPair], shared: Sequence[int], batch_tokens: int) -> list[list[int]]:
    batches: list[list[int]] = [[]]
    widest = 0
    for i in order:
        width = shared[i] + 2 * _suffix(pairs[i], shared[i])
        widest = max(widest, width)
        if batches[-1] and widest * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
            widest = width
        batches[-1].append(i)
    return batches


def _batch_sums(parts: Parts, pairs: Sequence[EncodedPair], shared: Sequence[int]) -> Float[Tensor, "4 pair d_model"]:
    """Sums of chosen and rejected, then last states of chosen and rejected."""
    heads = [[*pair.prompt, *pair.chosen][:n] for pair, n in zip(pairs, shared, strict=True)]
    ids, real = left_padded(heads)
    ends = (
        torch.arange(ids.shape[1])
        >= torch.tensor([ids.shape[1] - n + len(p.prompt) - 1 for n, p in zip(shared, pairs, strict=True)])[:, None]
    )
    positions = (real.long().cumsum(1) - 1).clamp_min(0)
    hidden, cache = _states(parts, ids, real, positions, None)
    sums = masked_sums(hidden, ends.to(hidden.device)).repeat_interleave(2, 0)
    last = hidden[:, -1].float().repeat_interleave(2, 0)
    tails = [
        [*pair.prompt, *answer][n:-1] for pair, n in zip(pairs, shared, strict=True) for answer in (pair.chosen, pair.rejected)
    ]
    lengths = torch.tensor([len(tail) for tail in tails])
    if int(lengths.max()):
        cache.batch_repeat_interleave(2)
        after = torch.zeros(len(tails), int(lengths.max()), dtype=torch.long)
        for row, tail in zip(after, tails, strict=True):
            row[: len(tail)] = torch.tensor(tail, dtype=torch.long)
        told = torch.arange(after.shape[1]) < lengths[:, None]
        positions = positions[:, -1:].repeat_interleave(2, 0) + 1 + torch.arange(after.shape[1])
        hidden, _ = _states(parts, after, torch.cat([real.repeat_interleave(2, 0), told], 1), positions, cache)
        sums = sums + masked_sums(hidden, told.to(hidden.device))
        at_end = hidden[torch.arange(len(tails)), (lengths - 1).clamp_min(0).to(hidden.device)].float()
        last = torch.where((lengths > 0).to(hidden.device)[:, None], at_end, last)
    return torch.stack([sums[0::2], sums[1::2], last[0::2], last[1::2]])


def _states(
    parts: Parts,
    ids: Int[Tensor, "batch seq"],
    real: Bool[Tensor, "batch all"],
    positions: Int[Tensor, "batch seq"],
    cache: Any,
) -> tuple[Float[Tensor, "batch seq d_model"], Any]:
    """(what the head reads at every position, the cache after it): the blocks and the final norm, no logits."""
    last = len(parts.blocks) - 1
    with read(parts, [last]) as found:
        out = parts.decoder(
            input_ids=ids.to(parts.device),
            attention_mask=real.long().to(parts.device),
            position_ids=positions.to(parts.device),
            past_key_values=cache,
            use_cache=True,
        )
    return parts.norm(found[last]), out.past_key_values
