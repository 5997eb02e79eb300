"""Log-probabilities and divergences from logits, in float32, a chunk of tokens at a time.

No function here makes a copy of more than a chunk of a seq x vocab matrix, so that the logits of the caller are the
only large thing in memory. Units: nats. The direction of a KL is in its name: `token_kl_tuned_to_base` = KL(tuned || base) =
sum over v of p_tuned(v) (log p_tuned(v) - log p_base(v)), what the tuned model's samples say.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mneme.errors import EmptyMask

_CHUNK_ELEMENTS = {"cpu": 2**20}
"""A chunk has about so many logits: 4 MB, which stay in the cache (twice as fast here as 64 MB); elsewhere 64 MB."""


def chunk_tokens(logits: Float[Tensor, "*token vocab"]) -> int:
    """How many tokens of `logits` are worked on together."""
    return max(1, _CHUNK_ELEMENTS.get(logits.device.type, 2**24) // logits.shape[-1])


def masked_mean(values: Float[Tensor, "*token"], keep: Bool[Tensor, "*token"]) -> Float[Tensor, ""]:
    """Mean of `values` where `keep`; NaN elsewhere does no harm. Raises EmptyMask where nothing is kept."""
    count = int(keep.sum())
    if count == 0:
        raise EmptyMask("a mean over no tokens has no value: every token is masked. Give text with at least one kept token.")
    return torch.where(keep, values, torch.zeros_like(values)).sum() / count


def token_log_probs(logits: Float[Tensor, "*token vocab"], ids: Int[Tensor, "*token"]) -> Float[Tensor, "*token"]:
    """log p(ids) under softmax(logits), nats, float32. Not shifted: logits[i] has to be what predicts ids[i]."""

    def one(chunk: Tensor, target: Tensor) -> Tensor:
        chunk = chunk.float()
        return chunk.gather(-1, target[:, None])[:, 0] - chunk.logsumexp(-1)

    return _in_chunks(one, logits.flatten(0, -2), ids.flatten()).view(ids.shape)


def token_kl_tuned_to_base(
    *, tuned_logits: Float[Tensor, "*token vocab"], base_logits: Float[Tensor, "*token vocab"]
) -> Float[Tensor, "*token"]:
    """KL(tuned || base) of every token's next-token distribution, nats, float32. Exactly 0 for equal logits."""
    return _kl(tuned_logits, base_logits)


def token_kl_base_to_tuned(
    *, tuned_logits: Float[Tensor, "*token vocab"], base_logits: Float[Tensor, "*token vocab"]
) -> Float[Tensor, "*token"]:
    """KL(base || tuned) of every token's next-token distribution, nats, float32. Exactly 0 for equal logits."""
    return _kl(base_logits, tuned_logits)


def kl_from(
    p: Float[Tensor, "token vocab"], log_p: Float[Tensor, "token vocab"], log_q: Float[Tensor, "token vocab"]
) -> Float[Tensor, " token"]:
    """KL(p || q), nats; terms with p = 0 are 0. Rounding can make a sum of tiny terms negative; a divergence is not, so it
    ends at 0."""
    terms: Tensor = (log_p - log_q).masked_fill_(p == 0, 0.0).mul_(p)
    return terms.sum(-1).clamp_min_(0.0)


def _kl(of: Tensor, to: Tensor) -> Tensor:
    def one(p_logits: Tensor, q_logits: Tensor) -> Tensor:
        log_p = p_logits.float().log_softmax(-1)
        return kl_from(log_p.exp(), log_p, q_logits.float().log_softmax(-1))

    return _in_chunks(one, of.flatten(0, -2), to.flatten(0, -2)).view(of.shape[:-1])


def _in_chunks(function: Callable[[Tensor, Tensor], Tensor], logits: Tensor, other: Tensor) -> Tensor:
    """`function` over both tensors, `_CHUNK_ELEMENTS` logits at a time."""
    rows = chunk_tokens(logits)
    pieces = [function(logits[i : i + rows], other[i : i + rows]) for i in range(0, len(logits), rows)]
    return torch.cat(pieces) if pieces else logits.new_zeros(0, dtype=torch.float32)
