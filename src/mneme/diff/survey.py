"""The survey: one pass of both models over the text, no training. Free signals, and the baseline of everything later.

Per predicted token, in float32: log-likelihood under both models, whether each model's first choice is right, KL both ways;
per layer |q|/|h_base|; over the vocabulary, which tokens gained probability. KL and the change in likelihood over all tokens
mislead (a benign narrow adapter that no longer expects other questions has the KL of a damaged model), so what counts for
knowledge is read at tokens which either model was confident of: see `mneme.predict.effects`.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray
from torch import Tensor

from mneme.activations.harvest import sink_mask
from mneme.models.hooks import read
from mneme.models.logits import chunk_tokens, kl_from
from mneme.models.pair import ModelPair, Side
from mneme.models.sides import on_both

_TINY = 1e-12
"""Far below the norm of any residual vector: keeps 0 / 0 from being computed."""


class SurveyColumns(NamedTuple):
    """What one pass over `row` rows of `seq` tokens saw. Predictions: position i says token i + 1, so `seq - 1` of them."""

    logp_base: Float[ndarray, "row prediction"]
    """log p_base(next token), nats."""
    logp_tuned: Float[ndarray, "row prediction"]
    right_base: Bool[ndarray, "row prediction"]
    """The base model's first choice is the next token."""
    right_tuned: Bool[ndarray, "row prediction"]
    choice_base: Int[ndarray, "row prediction"]
    """First choice of each model (token id)."""
    choice_tuned: Int[ndarray, "row prediction"]
    kl_tuned_to_base: Float[ndarray, "row prediction"]
    """KL(tuned || base), nats."""
    kl_base_to_tuned: Float[ndarray, "row prediction"]
    relative_change: Float[ndarray, "row seq layer"]
    """|h_tuned - h_base| / |h_base| after every block."""
    sink: Bool[ndarray, "row seq layer"]
    """Attention sinks (first token of a row, massive base residual), left out of dictionaries."""
    mean_gain: Float[ndarray, " vocab"]
    """Sum over predictions of p_tuned(v) - p_base(v)."""


def empty_survey(n_rows: int, seq: int, n_layers: int, vocab: int) -> SurveyColumns:
    """Columns of rows that nobody read: every prediction of probability 0, no relative change, sinks at first tokens alone."""
    shape = (n_rows, seq - 1)
    sink = np.zeros((n_rows, seq, n_layers), dtype=bool)
    sink[:, 0] = True
    return SurveyColumns(
        logp_base=np.full(shape, -np.inf, dtype=np.float32),
        logp_tuned=np.full(shape, -np.inf, dtype=np.float32),
        right_base=np.zeros(shape, dtype=bool),
        right_tuned=np.zeros(shape, dtype=bool),
        choice_base=np.zeros(shape, dtype=np.int64),
        choice_tuned=np.zeros(shape, dtype=np.int64),
        kl_tuned_to_base=np.zeros(shape, dtype=np.float32),
        kl_base_to_tuned=np.zeros(shape, dtype=np.float32),
        relative_change=np.full((n_rows, seq, n_layers), np.nan, dtype=np.float32),
        sink=sink,
        mean_gain=np.zeros(vocab),
    )


def survey_rows(pair: ModelPair, ids: Int[Tensor, "row seq"], *, batch_rows: int) -> SurveyColumns:
    """Run both models once over `ids` in batches of `batch_rows` rows.

    Law *identity*: a pair of equal models gives exactly 0 in every difference. *Padding*: rows carry none. Cost: two full
    forward passes and O(vocab) memory beyond one batch of logits for each model.
    """
    parts: list[list[ndarray]] = [[] for _ in SurveyColumns._fields[:-1]]
    gain = torch.zeros(pair.vocab_size, dtype=torch.float64)
    layers = list(range(pair.n_layers))
    for start in range(0, len(ids), batch_rows):
        batch = ids[start : start + batch_rows].long()
        (base_logits, base_states), (tuned_logits, tuned_states) = on_both(pair, partial(_forward, pair, batch, layers))
        tuned_logits = tuned_logits.to(base_logits.device)  # a model spread over several devices may end on another one
        said, own_gain = read_predictions(base_logits, tuned_logits, batch[:, 1:].to(base_logits.device))
        gain += own_gain.double().cpu()
        relative = torch.stack(
            [_relative(base_states[i], tuned_states[i].to(base_states[i].device)).cpu() for i in layers],
            dim=-1,
        )
        columns = (
            *said,
            relative,
            torch.stack([sink_mask(base_states[i].norm(dim=-1)).cpu() for i in layers], dim=-1),
        )
        for store, column in zip(parts, columns, strict=True):
            store.append(column.cpu().numpy())
    columns_by_name = dict(zip(SurveyColumns._fields, (np.concatenate(store) for store in parts), strict=False))
    return SurveyColumns(**columns_by_name, mean_gain=gain.numpy())


def _relative(base: Float[Tensor, "row seq d_model"], tuned: Float[Tensor, "row seq d_model"]) -> Float[Tensor, "row seq"]:
    size: Tensor = (tuned - base).norm(dim=-1) / base.norm(dim=-1).clamp_min(_TINY)
    return size


def read_predictions(
    base_logits: Float[Tensor, "row prediction vocab"],
    tuned_logits: Float[Tensor, "row prediction vocab"],
    target: Int[Tensor, "row prediction"],
) -> tuple[list[Shaped[Tensor, "row prediction"]], Float[Tensor, " vocab"]]:
    """The first eight columns of `SurveyColumns` in their order, and the sum over predictions of p_tuned(v) - p_base(v).

    A few tokens at a time, each distribution made once for all that is read from it.
    """
    gain = base_logits.new_zeros(base_logits.shape[-1])
    found: list[list[Tensor]] = [[] for _ in range(8)]  # the columns that need no residual stream
    for base_row, tuned_row, target_row in zip(base_logits, tuned_logits, target, strict=True):
        tokens = chunk_tokens(base_row)
        for base, tuned, wanted in zip(*(x.split(tokens) for x in (base_row, tuned_row, target_row)), strict=True):
            log_base, log_tuned = base.log_softmax(-1), tuned.log_softmax(-1)
            p_base, p_tuned = log_base.exp(), log_tuned.exp()
            choices = base.argmax(-1), tuned.argmax(-1)
            columns = (
                *(log.gather(-1, wanted[:, None])[:, 0] for log in (log_base, log_tuned)),
                *(choice == wanted for choice in choices),
                *choices,
                kl_from(p_tuned, log_tuned, log_base),
                kl_from(p_base, log_base, log_tuned),
            )
            for store, column in zip(found, columns, strict=True):
                store.append(column)
            gain += (p_tuned - p_base).sum(0)
    return [torch.cat(column).view(target.shape) for column in found], gain


def _forward(pair: ModelPair, batch: Tensor, layers: list[int], which: Side) -> tuple[Tensor, dict[int, Tensor]]:
    """Logits of every position that predicts (float32) and the residual stream after each of `layers` (float32)."""
    with torch.no_grad(), pair.using(which) as parts, read(parts, layers) as states:
        logits = parts.model(input_ids=batch.to(parts.device), use_cache=False).logits
        return logits[:, :-1].float(), {layer: state.float() for layer, state in states.items()}
