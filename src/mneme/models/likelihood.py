"""Log-likelihood of the tokens that count, nats: one definition for what is learned, measured, forgotten and repaired.

Only positions that predict a counted token go through the head, some of them at a time, so that never more than a chunk of a
token x vocabulary matrix exists. Law: padding.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mneme.models.architecture import Parts, lens
from mneme.models.batching import BATCH_TOKENS, Batch, batches, run_blocks
from mneme.models.hooks import read, stop_after
from mneme.models.logits import token_log_probs
from mneme.text.encoded import Encoded, counted_tokens

_LOGITS = 2**24
"""Logits that exist at once where only a number of each row is wanted: 64 MB in float32."""


class Predictions(NamedTuple):
    """What a model says to every counted token, text after text."""

    log_prob: Float[ndarray, " token"]
    """Nats, float64."""
    right: Bool[ndarray, " token"]
    """The model's first choice is this token."""


def logits_at(parts: Parts, batch: Batch, places: Bool[Tensor, "batch seq"]) -> Float[Tensor, "token vocab"]:
    """Logits at some places of a batch, row after row, with a gradient where the caller wants one."""
    return lens(parts, _last_stream(parts, batch, places))


def counted_logits(parts: Parts, batch: Batch) -> Float[Tensor, "token vocab"]:
    """Logits that predict each counted token of a batch, row after row, with a gradient where the caller wants one."""
    return logits_at(parts, batch, batch.predicting())


def counted_log_probs(parts: Parts, batch: Batch) -> Float[Tensor, " token"]:
    """log p of each counted token of a batch given those before it, row after row; nats, float32, with a gradient where the
    caller wants one (the head then runs again in the backward pass where its logits would be too many)."""
    return _told(parts, batch, token_log_probs)


def row_log_probs(parts: Parts, batch: Batch) -> Float[Tensor, " batch"]:
    """Sum of log p over the counted tokens of each row; nats, float32, with a gradient where the caller wants one."""
    told = counted_log_probs(parts, batch)
    owners = batch.predicting().nonzero()[:, 0].to(told.device)
    return torch.zeros(len(batch.ids), device=told.device).index_add(0, owners, told)


def token_log_likelihoods(
    parts: Parts,
    texts: Sequence[Encoded],
    *,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[Batch], None] = lambda _batch: None,
) -> Float[ndarray, " token"]:
    """log p of every counted token, text after text; nats, float64. `advance` is told of every batch that is done."""
    told: Float[ndarray, " token"] = _all_texts(parts, texts, batch_tokens, advance, token_log_probs).double().numpy()
    return told


def text_log_likelihoods(
    parts: Parts,
    texts: Sequence[Encoded],
    *,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[Batch], None] = lambda _batch: None,
) -> Float[ndarray, " text"]:
    """Sum of log p over the counted tokens of every text; nats, float64, 0 where none counts."""
    told = token_log_likelihoods(parts, texts, batch_tokens=batch_tokens, advance=advance)
    owners = np.repeat(np.arange(len(texts)), counted_tokens(texts))
    sums: Float[ndarray, " text"] = np.bincount(owners, weights=told, minlength=len(texts))
    return sums


def mean_nll(
    parts: Parts,
    texts: Sequence[Encoded],
    *,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[Batch], None] = lambda _batch: None,
) -> Float[ndarray, " text"]:
    """Mean negative log-likelihood over the counted tokens of every text; nats per token, float64, NaN where none counts."""
    counts = counted_tokens(texts)
    sums = text_log_likelihoods(parts, texts, batch_tokens=batch_tokens, advance=advance)
    means: Float[ndarray, " text"] = np.divide(-sums, counts, out=np.full(len(texts), np.nan), where=counts > 0)
    return means


def token_predictions(
    parts: Parts,
    texts: Sequence[Encoded],
    *,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[Batch], None] = lambda _batch: None,
) -> Predictions:
    """log p of every counted token, and whether it is the model's first choice, text after text."""

    def both(logits: Tensor, ids: Tensor) -> Tensor:
        return torch.stack([token_log_probs(logits, ids), (logits.argmax(-1) == ids).float()], dim=1)

    found = _all_texts(parts, texts, batch_tokens, advance, both)
    return Predictions(found[:, 0].double().numpy(), found[:, 1].bool().numpy())


_Read = Callable[[Tensor, Tensor], Tensor]
"""(logits [token vocab], ids [token]) -> numbers of each token [token ...]."""


def _last_stream(parts: Parts, batch: Batch, places: Bool[Tensor, "batch seq"]) -> Float[Tensor, "token d_model"]:
    last = len(parts.blocks) - 1
    with read(parts, [last]) as found, stop_after(parts, last):
        run_blocks(parts, batch)
    hidden: Tensor = found[last]
    return hidden[places.to(hidden.device)]


def _told(parts: Parts, batch: Batch, function: _Read) -> Tensor:
    """`function` of the logits that predict each counted token, a chunk of tokens at a time."""
    places = batch.predicting()
    hidden = _last_stream(parts, batch, places)
    ids: Int[Tensor, " token"] = batch.ids.roll(-1, 1)[places].to(hidden.device)
    rows = max(1, _LOGITS // int(parts.embedding.weight.shape[0]))  # type: ignore[index]

    def one(stream: Tensor, target: Tensor) -> Tensor:
        return function(lens(parts, stream), target)

    if len(hidden) <= rows:
        return one(hidden, ids)
    pieces = []
    for start in range(0, len(hidden), rows):
        chunk, target = hidden[start : start + rows], ids[start : start + rows]
        again = torch.is_grad_enabled() and chunk.requires_grad
        pieces.append(checkpoint(one, chunk, target, use_reentrant=False) if again else one(chunk, target))
    return torch.cat(pieces)


@torch.no_grad()
def _all_texts(
    parts: Parts, texts: Sequence[Encoded], batch_tokens: int, advance: Callable[[Batch], None], function: _Read
) -> Tensor:
    """`function` of every counted token, in the order of the texts, on the CPU."""
    found: list[Tensor] = [torch.zeros(0)] * len(texts)
    for batch in batches(texts, batch_tokens=batch_tokens):
        told = _told(parts, batch, function).cpu()
        for number, own in zip(batch.texts, batch.apart(told), strict=True):
            found[number] = own
        advance(batch)
    return torch.cat(found)
