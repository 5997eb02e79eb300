"""CHES: which preference pairs will lower the probability of their own preferred answer (likelihood displacement).

Razin et al. 2025 (arXiv 2410.08847), definition 2. With h the residual stream after the final norm (what the head reads) at
the positions that predict the tokens of an answer, and S+ and S- its sums over the chosen and the rejected answer:
CHES = <S+, S-> - |S+|^2, and length-normalised ln-CHES = <S+/n+, S-/n-> - |S+/n+|^2. High means: expect displacement.

The tokens of an answer are its own words and one closing token, under any template: the authors' script renders the prompt to
where the assistant speaks, appends the words and reads the states from the last prompt token to the last word. What else a
template writes behind an answer has no part in it (`text/pairs.py`, bare pairs).

Where we differ: the published code runs one pair at a time with all logits; its batched function takes padding on the right
for text (padding on the left it handles). Here pairs run in batches without logits and what both answers of a pair begin with
runs once, exactly. Where words and prompt share a token at their border, the answer begins with that token here; the authors
begin it at the prompt's own length. `edit_similarity` and `last_hidden_similarity` are the paper's baselines: at the last word
and over the words, no template's token among them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mneme.errors import EmptyMask
from mneme.models.architecture import Parts
from mneme.models.batching import length_batches, padded
from mneme.models.hooks import read, stop_after
from mneme.text.encoded import whole_text
from mneme.text.pairs import EncodedPair, common_prefix


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
    """At the position that predicts the answer's last token: of a bare pair, at the last word."""


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
def pair_sums(
    parts: Parts, pairs: Sequence[EncodedPair], *, batch_tokens: int | None = None, branches: bool | None = None
) -> PairSums:
    """Hidden sums of every pair: batched by length, no logits, and one pass over what both answers begin with.

    A pair is one row, [shared beginning, rest of chosen, rest of rejected], in which the second rest does not see the first.
    A model whose attention cannot be told so (`can_branch`, asked where `branches` does not say it) runs them as two rows.
    The cost is one forward pass of the blocks. `batch_tokens` per pass: 768 on a CPU, whose caches then hold the
    activations, 16,384 elsewhere. Law: padding (batching, order and the tokenizer's padding side do not matter).
    """
    if not pairs:
        raise EmptyMask("no pair was given: expected at least one preference pair to score.")
    if batch_tokens is None:
        batch_tokens = 768 if parts.device.type == "cpu" else 16_384
    if branches is None:
        branches = can_branch(parts, pairs)
    shared = [_shared(pair) if branches else 0 for pair in pairs]
    widths = [n + sum(len(rest) for rest in _rests(pair, n)) for pair, n in zip(pairs, shared, strict=True)]
    found = torch.zeros(4, len(pairs), parts.width)
    for batch in length_batches(widths, batch_tokens):
        found[:, batch] = _batch_sums(parts, [pairs[i] for i in batch], [shared[i] for i in batch]).cpu()
    lengths = [torch.tensor([len(a) for a in side]) for side in ([p.chosen for p in pairs], [p.rejected for p in pairs])]
    return PairSums(
        chosen=found[0],
        rejected=found[1],
        chosen_tokens=lengths[0],
        rejected_tokens=lengths[1],
        chosen_last=found[2],
        rejected_last=found[3],
    )


def _shared(pair: EncodedPair) -> int:
    """Tokens that both rows begin with and whose states both need: the last token of a row predicts nothing."""
    same = common_prefix(pair.chosen, pair.rejected)
    return len(pair.prompt) + min(same, len(pair.chosen) - 1, len(pair.rejected) - 1)


def _rests(pair: EncodedPair, shared: int) -> tuple[list[int], list[int]]:
    """What runs after the shared tokens: of each answer all but its last token, which predicts nothing."""
    chosen, rejected = ([*pair.prompt, *answer][shared:-1] for answer in (pair.chosen, pair.rejected))
    return chosen, rejected


@torch.no_grad()
def can_branch(parts: Parts, pairs: Sequence[EncodedPair]) -> bool:
    """Whether this model takes the mask of a branching row for what it says: no window that is shorter than a row, and of the
    first pair the same sums as two plain rows give (two forward passes)."""
    config = parts.model.config.get_text_config()
    longest = max(len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs)
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
    if window is not None and window < longest:
        return False
    try:
        branched = _batch_sums(parts, pairs[:1], [_shared(pairs[0])])
    except (TypeError, ValueError, RuntimeError, IndexError):  # no position ids, or no mask of four axes
        return False
    plain = _batch_sums(parts, pairs[:1], [0])
    tolerance = 256 * torch.finfo(next(parts.model.parameters()).dtype).eps
    return float((branched - plain).abs().max()) <= tolerance * float(plain.abs().max())


def _batch_sums(parts: Parts, pairs: Sequence[EncodedPair], shared: Sequence[int]) -> Float[Tensor, "4 pair d_model"]:
    """Sums of chosen and rejected, then last states of both. With nothing shared, an answer has a row of its own."""
    if not any(shared):
        rows = [[*pair.prompt, *answer[:-1]] for pair in pairs for answer in (pair.chosen, pair.rejected)]
        width = max(map(len, rows))
        batch = padded([whole_text(row) for row in rows])
        hidden = _states(parts, batch.ids, None, None)
        answer_starts = _before([len(pair.prompt) - 1 for pair in pairs for _ in range(2)], width)
        told = masked_sums(hidden, (batch.real & ~answer_starts).to(hidden.device))
        last = _at(hidden, torch.tensor([len(row) - 1 for row in rows]))
        return torch.stack([told[0::2], told[1::2], last[0::2], last[1::2]])
    rests = [_rests(pair, n) for pair, n in zip(pairs, shared, strict=True)]
    rows = [[*[*p.prompt, *p.chosen][:n], *one, *two] for p, n, (one, two) in zip(pairs, shared, rests, strict=True)]
    width = max(map(len, rows))
    ends = [(n, n + len(one), n + len(one) + len(two)) for n, (one, two) in zip(shared, rests, strict=True)]
    in_shared, to_chosen, to_rejected = (_before([end[i] for end in ends], width) for i in range(3))
    of_chosen, of_rejected = to_chosen & ~in_shared, to_rejected & ~to_chosen
    first = torch.tensor([len(one) for one, _ in rests])[:, None]
    positions = torch.arange(width) - torch.where(to_chosen, 0, first)
    sees = in_shared[:, None, :] | (of_chosen[:, None, :] == of_chosen[:, :, None])
    hidden = _states(parts, padded([whole_text(row) for row in rows]).ids, positions, sees.tril())
    answer_starts = _before([len(pair.prompt) - 1 for pair in pairs], width)
    alike = in_shared & ~answer_starts
    sums = [masked_sums(hidden, (alike | rest).to(hidden.device)) for rest in (of_chosen, of_rejected)]
    of_shared, at_chosen, at_rejected = (torch.tensor([end[i] - 1 for end in ends]) for i in range(3))
    at_rejected = torch.where(at_rejected > at_chosen, at_rejected, of_shared)
    return torch.stack([*sums, _at(hidden, at_chosen), _at(hidden, at_rejected)])


def _states(
    parts: Parts,
    ids: Int[Tensor, "batch seq"],
    positions: Int[Tensor, "batch seq"] | None,
    sees: Bool[Tensor, "batch seq seq"] | None,
) -> Float[Tensor, "batch seq d_model"]:
    """What the head reads at every position: the blocks and the final norm, no logits. Padding is on the right."""
    last = len(parts.blocks) - 1
    told: dict[str, Tensor] = {}
    if positions is not None and sees is not None:
        dtype = next(parts.model.parameters()).dtype
        mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)
        told = {"attention_mask": mask[:, None].to(parts.device), "position_ids": positions.to(parts.device)}
    with read(parts, [last]) as found, stop_after(parts, last):
        parts.decoder(input_ids=ids.to(parts.device), use_cache=False, **told)
    hidden: Tensor = parts.norm(found[last])
    return hidden


def _before(ends: Sequence[int], width: int) -> Bool[Tensor, "batch seq"]:
    """True left of each row's end."""
    return torch.arange(width) < torch.tensor(ends)[:, None]


def _at(hidden: Float[Tensor, "batch seq d_model"], places: Int[Tensor, " batch"]) -> Float[Tensor, "batch d_model"]:
    return hidden[torch.arange(len(places)), places.to(hidden.device)].float()
