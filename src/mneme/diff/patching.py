"""Activation patching: by which block how much of the change in output has happened, coarse to fine.

The tuned model goes on with the base's residual stream after a block; what is left of KL(tuned || base) happens behind it.
Blocks before the patched one are not run (`going_on`), and the head is asked at some thousand places. Activation patching as
in Vig et al. (2020); looking coarse to fine, and the share of KL as the measure, are ours.
"""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mneme.activations.harvest import ALONE
from mneme.models.heads import head_logits, rows_at_once
from mneme.models.hooks import can_go_on, going_on, read_residuals
from mneme.models.logits import token_kl_tuned_to_base
from mneme.models.pair import ModelPair
from mneme.models.ranks import Ranks

ENOUGH = 0.75
"""Share of the change in output by which a layer is chosen. At 1/2 the built-in organism's block 0 was taken, where latents
are about single tokens; at 3/4 it is block 1 (docs/log.md, the first audit). Seen on that one pair."""
PLACES = 1024
"""Predictions at which KL is read, spread evenly over all. A round number that was never varied."""

_TRIED = 16
"""Tokens on which it is tried out whether a model can go on from its middle. A round number that was never varied."""

Shares = dict[int, float]
"""Layer -> share of KL(tuned || base) that has happened by it."""


def patched_kl_share(
    pair: ModelPair, ids: Int[Tensor, "row seq"], layers: list[int], *, batch_rows: int, ranks: Ranks = ALONE
) -> Shares:
    """For each layer, the share of KL(tuned || base) that goes when the tuned model's residual stream after that block is
    replaced by the base model's: how much of the change has happened by then.

    0 where the models do not differ. Cost: two forward passes over `ids`, and for each layer one of the blocks behind it; the
    layers are shared out among `ranks`, which must all call this. Memory: the base's residual stream at `layers`.
    """
    last = pair.n_layers - 1
    rest = torch.zeros(len(layers), dtype=torch.float64)
    own = list(ranks.own(range(len(layers))))
    with pair.using("tuned") as parts:
        skip = can_go_on(parts, ids[:1, :_TRIED].long())
    whole = 0.0
    for rows in torch.split(torch.arange(len(ids)), batch_rows):
        batch, where = ids[rows].long(), _places(len(ids), ids.shape[1] - 1, rows)
        with pair.using("base") as parts:
            base = read_residuals(parts, batch, sorted({*(layers[i] for i in own), last}))
        with pair.using("tuned") as parts:
            tuned = read_residuals(parts, batch, [last])[last]
            patched = [_patched(pair, batch, layers[i], base[layers[i]], skip=skip) for i in own]
        said = [state.flatten(0, 1)[where.to(state.device)] for state in (base[last], tuned, *patched)]
        for column, kl in enumerate(_kl_to(pair, said[0], said[1:])):
            if column:
                rest[own[column - 1]] += kl
            else:
                whole += kl
    if whole <= 0.0:
        return dict.fromkeys(layers, 0.0)
    shares = ranks.total(rest).tolist()
    return {layer: 1.0 - left / whole for layer, left in zip(layers, shares, strict=True)}


def _patched(
    pair: ModelPair, ids: Tensor, layer: int, state: Float[Tensor, "row seq d_model"], *, skip: bool
) -> Float[Tensor, "row seq d_model"]:
    last = pair.n_layers - 1
    parts = pair.tuned_parts
    with going_on(parts, layer, state.to(parts.device), skip=skip):
        return read_residuals(parts, ids, [last])[last]


def _places(n_rows: int, n_predictions: int, rows: Int[Tensor, " row"]) -> Int[Tensor, " place"]:
    """Of every so many predictions of all rows those that stand in `rows`, as flat places of the batch."""
    step = max(1, n_rows * n_predictions // PLACES)
    every = torch.arange(0, n_rows * n_predictions, step)
    inside = every[(every >= int(rows[0]) * n_predictions) & (every < (int(rows[-1]) + 1) * n_predictions)]
    row, place = inside // n_predictions - int(rows[0]), inside % n_predictions
    return row * (n_predictions + 1) + place


def _kl_to(pair: ModelPair, base: Float[Tensor, "place d_model"], others: list[Tensor]) -> Iterator[float]:
    """Sum over the places of KL(tuned || base), of each of the tuned model's streams."""
    chunk = rows_at_once(pair)
    sums = [0.0] * len(others)
    for start in range(0, len(base), chunk):
        here = slice(start, start + chunk)
        base_logits = head_logits(pair, "base", base[here])
        for index, other in enumerate(others):
            logits = head_logits(pair, "tuned", other[here]).to(base_logits.device)
            sums[index] += float(token_kl_tuned_to_base(tuned_logits=logits, base_logits=base_logits).double().sum())
    return iter(sums)


def coarse_to_fine(measure: Callable[[list[int]], Shares], n_layers: int, *, enough: float = ENOUGH) -> Shares:
    """Shares of as few layers as find the earliest that reaches `enough`, where shares grow with depth: every so many layers
    (the root of their number) and the last, then those between the first that reaches it and the one before."""
    step = max(1, round(math.sqrt(n_layers)))
    coarse = sorted({*range(step - 1, n_layers, step), n_layers - 1})
    shares = measure(coarse)
    hit = next((layer for layer in coarse if shares[layer] >= enough), None)
    if hit is None:
        return shares
    before = max((layer for layer in coarse if layer < hit), default=-1)
    fine = list(range(before + 1, hit))
    return dict(sorted({**shares, **(measure(fine) if fine else {})}.items()))


def choose_layers(shares: Shares, *, enough: float = ENOUGH) -> list[int]:
    """The earliest layer by which at least `enough` of the change in output has happened (`patched_kl_share`): late enough
    to hold the change, early enough to hold it in the model's own features rather than in next-token logits. Where no layer
    reaches it, the layer with the largest share; the last block is taken only when nothing before it reaches `enough`."""
    for layer in sorted(shares):
        if shares[layer] >= enough:
            return [layer]
    return [max(shares, key=lambda layer: shares[layer])]
