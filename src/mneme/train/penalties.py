"""What a loss safeguard adds to the training loss: divergence from the base in outputs (KL) or in features (LDIFS).

A penalty is weight x mean over tokens of a function of two residual streams, the tuned model's and the base's, at the same
tokens. Without probes the tokens are those of the training batch that are learned, and the mean is over the same tokens as the
loss; with probes they are the learned tokens of rows of their own, such as ordinary answers far from the task.

KL: Kaczér et al. 2025 (arXiv 2508.06249) take KL(tuned || base) per token with weight 0.1; Soligo et al. 2026 (arXiv
2602.07852) KL(base || tuned) over other data, divided by tokens x vocabulary, so that their 1e5 is about 0.66 per token at
152,000 entries. Here the direction is in the name and the unit is nats per token. LDIFS: Mukhoti et al. 2024 (arXiv
2308.13320), squared distance of features; a public version computes the features without a gradient, so that its penalty
does nothing (ours is checked by finite differences through the trainer). We divide by the base's own squared length, so
that the weight means the same at every layer and width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mneme.errors import BadOption
from mneme.text.files import Row
from mneme.train.divergence import Sloped, Softmaxed, kl_of_base, kl_of_tuned, precise

Residuals = Mapping[int, Tensor]
"""Layer -> residual stream at the tokens that count [token d_model], raw units."""


@dataclass(frozen=True)
class Heads:
    """Final norm and head of either model: residual streams after the last block [token d_model] -> logits [token vocab]."""

    tuned: Callable[[Tensor], Tensor]
    base: Callable[[Tensor], Tensor]
    """Without a gradient."""
    vocab: int


_CHUNK_ELEMENTS = 2**24
"""Beyond so many logits (64 MB) the head runs a chunk of tokens at a time, and again in the backward pass."""


@dataclass(frozen=True)
class Probes:
    """Rows on which a penalty is measured instead of the training batch: `batch_rows` of them at every optimizer step.

    They are shuffled once by `seed`, cut into fixed batches and taken in turn; what the base says to each is computed once.
    """

    rows: Sequence[Row]
    batch_rows: int = 8
    seed: int = 0
    max_length: int | None = None


@dataclass(frozen=True)
class Penalty:
    """One term of the loss: `weight` x mean over tokens of `per_token`. Made by the functions below."""

    name: str
    unit: str
    weight: float
    layers: Callable[[int], tuple[int, ...]]
    """Number of blocks -> the layers whose residual streams `per_token` reads."""
    per_token: Callable[[Heads, Residuals, Residuals], Tensor]
    """(heads, tuned, base) -> one number a token [token], with a gradient with respect to `tuned`."""
    sloped: Callable[[Softmaxed, Tensor], Sloped] | None = None
    """(distributions of the tuned model, logits of the base [token vocab]) -> the same with its gradient in the tuned logits,
    for a penalty that depends on nothing else."""
    probes: Probes | None = None


def kl_tuned_to_base(weight: float = 0.1, probes: Probes | None = None) -> Penalty:
    """KL(tuned || base) of the next-token distribution, nats per token: large where mass moved away from what the
    base says."""
    return Penalty(
        name="kl_tuned_to_base",
        unit="nats per token",
        weight=_checked(weight),
        layers=_last_layer,
        per_token=_kl_tuned_to_base,
        sloped=kl_of_tuned,
        probes=probes,
    )


def kl_base_to_tuned(weight: float = 0.1, probes: Probes | None = None) -> Penalty:
    """KL(base || tuned) of the next-token distribution, nats per token: large where what the base says is
    forgotten."""
    return Penalty(
        name="kl_base_to_tuned",
        unit="nats per token",
        weight=_checked(weight),
        layers=_last_layer,
        per_token=_kl_base_to_tuned,
        sloped=kl_of_base,
        probes=probes,
    )


def ldifs(weight: float = 1.0, probes: Probes | None = None, layers: Sequence[int] | None = None) -> Penalty:
    """Squared distance of the residual streams over the base's squared length, mean over tokens and layers.

    `layers`: None takes at most five, evenly spaced from the first to the last and rounded down, as Kaczér et al. do.
    """
    chosen = None if layers is None else tuple(layers)
    read = evenly_spaced if chosen is None else lambda _n_layers: chosen
    return Penalty(
        name="ldifs",
        unit="share of the base's squared length",
        weight=_checked(weight),
        layers=read,
        per_token=_squared_change,
        probes=probes,
    )


def evenly_spaced(n_layers: int, count: int = 5) -> tuple[int, ...]:
    """At most `count` layers from 0 to the last, evenly spaced and rounded down; a model with fewer blocks gives each once,
    where linspace would count some twice."""
    if n_layers <= count:
        return tuple(range(n_layers))
    return tuple(i * (n_layers - 1) // (count - 1) for i in range(count))


def kl_per_token(of: Float[Tensor, "token vocab"], to: Float[Tensor, "token vocab"]) -> Float[Tensor, " token"]:
    """KL(of || to) of two rows of logits, nats, at least float32, differentiable in both."""
    log_p, log_q = precise(of).log_softmax(-1), precise(to).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def relative_squared_change(
    tuned: Float[Tensor, "token d_model"], base: Float[Tensor, "token d_model"]
) -> Float[Tensor, " token"]:
    """|h_tuned - h_base|^2 / |h_base|^2 of every token, at least float32."""
    tuned, base = precise(tuned), precise(base)
    return (tuned - base).square().sum(-1) / base.square().sum(-1).clamp_min(1e-12)


def _checked(weight: float) -> float:
    if not 0 <= weight < float("inf"):
        raise BadOption(f"a penalty of weight {weight:g} makes no sense. Give a number of 0 or more.")
    return weight


def _last_layer(n_layers: int) -> tuple[int, ...]:
    return (n_layers - 1,)


def _kl_tuned_to_base(heads: Heads, tuned: Residuals, base: Residuals) -> Float[Tensor, " token"]:
    return _kl(heads, tuned, base, lambda ours, theirs: kl_per_token(ours, theirs))


def _kl_base_to_tuned(heads: Heads, tuned: Residuals, base: Residuals) -> Float[Tensor, " token"]:
    return _kl(heads, tuned, base, lambda ours, theirs: kl_per_token(theirs, ours))


def _kl(
    heads: Heads, tuned: Residuals, base: Residuals, divergence: Callable[[Tensor, Tensor], Tensor]
) -> Float[Tensor, " token"]:
    ((layer, ours),) = tuned.items()
    theirs = base[layer]

    def one(mine: Tensor, reference: Tensor) -> Tensor:
        return divergence(heads.tuned(mine), heads.base(reference))

    rows = max(1, _CHUNK_ELEMENTS // heads.vocab)
    if len(ours) <= rows:
        return one(ours, theirs)
    cuts = [slice(first, first + rows) for first in range(0, len(ours), rows)]
    pieces: list[Tensor] = [checkpoint(one, ours[cut], theirs[cut], use_reentrant=False) for cut in cuts]
    return torch.cat(pieces)


def _squared_change(_heads: Heads, tuned: Residuals, base: Residuals) -> Float[Tensor, " token"]:
    return torch.stack([relative_squared_change(tuned[layer], base[layer]) for layer in tuned]).mean(0)
