"""Log-likelihood of answers: the one forward pass that scores, gradients and trial trainings of this room share.

Only positions that predict a learned token go through the head, so logits are answers x vocabulary and no more.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mneme.models.architecture import Parts, lens
from mneme.models.hooks import read, stop_after
from mneme.models.logits import token_log_probs
from mneme.models.rows import Encoded, right_padded
from mneme.preferences.pairs import EncodedPair


def answer_log_probs(
    parts: Parts, ids: Int[Tensor, "batch seq"], learned: Bool[Tensor, "batch seq"]
) -> Float[Tensor, " batch"]:
    """Sum of log p over the learned tokens of each row, nats, with a gradient where the caller wants one.

    Padding is on the right and not learned. The first token of a row predicts nothing and may not be learned.
    """
    predicts = torch.cat([learned[:, 1:], torch.zeros_like(learned[:, :1])], dim=1).to(parts.device)
    ids = ids.to(parts.device)
    last = len(parts.blocks) - 1
    with read(parts, [last]) as found, stop_after(parts, last):
        parts.decoder(input_ids=ids, use_cache=False)
    told = token_log_probs(lens(parts, found[last][predicts]), ids.roll(-1, 1)[predicts])
    owners = predicts.nonzero()[:, 0]
    return torch.zeros(len(ids), device=told.device).index_add(0, owners, told)


@torch.no_grad()
def summed_log_probs(parts: Parts, rows: Sequence[Encoded], *, batch_tokens: int = 4096) -> Float[Tensor, " row"]:
    """log p of each row's learned tokens together, nats per answer. Law: padding."""
    found = torch.zeros(len(rows))
    for batch in length_batches([len(ids) for ids, _ in rows], batch_tokens):
        ids, _, learned = right_padded([rows[i] for i in batch], 0)
        found[batch] = answer_log_probs(parts, ids, learned).cpu().float()
    return found


def answer_nll(parts: Parts, rows: Sequence[Encoded], *, batch_tokens: int = 4096) -> Float[Tensor, " row"]:
    """Mean negative log-likelihood of each row's learned tokens, nats per token."""
    lengths = torch.tensor([sum(learned) for _, learned in rows])
    return -summed_log_probs(parts, rows, batch_tokens=batch_tokens) / lengths


def perplexity_gap(base_nll: Float[Tensor, " row"], other_nll: Float[Tensor, " row"]) -> Float[Tensor, " row"]:
    """base - other, nats per token: above 0 where the other model expects the answer more than the base does.

    The gap by which Kaczér et al. 2025 (arXiv 2508.06249) rank rows, not divided by the base's and with the sign turned: there
    a row is safe where a misaligned model finds it unlikely, here it is suspect where it finds it likely.
    """
    return base_nll - other_nll


def pair_rows(pairs: Sequence[EncodedPair]) -> tuple[list[Encoded], list[Encoded]]:
    """(chosen rows, rejected rows) of pairs: prompt and answer, the answer learned."""
    chosen = [([*p.prompt, *p.chosen], [False] * len(p.prompt) + [True] * len(p.chosen)) for p in pairs]
    rejected = [([*p.prompt, *p.rejected], [False] * len(p.prompt) + [True] * len(p.rejected)) for p in pairs]
    return chosen, rejected


def length_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of rows of about equal length, longest first; a batch has at most `batch_tokens`, or one row."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
