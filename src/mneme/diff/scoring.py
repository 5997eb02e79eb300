"""Scores every latent of a dictionary in one sparse pass: change energy, firing rate, latent scaling, relative norm.

The relative norm |d_tuned| / (|d_base| + |d_tuned|) is that by which Delta-Crosscoder (arXiv 2603.04426) selects; Minder et
al. have another one, which `mneme.audit.records.norm_difference` gives.

Latent scaling (Minder et al. 2025, arXiv 2504.02922): beta_j^m = argmin_b sum_n |Y^m - b f_j d_j^t|^2, always with the tuned
decoder d^t, for three targets Y^m of each model m: error (x^m minus the reconstruction without latent j), reconstruction and
activation. The published code builds a latents x tokens x d_model tensor per target. With C = sum f^2, D = |d^t|^2,
G^m = <d^t, d^m>, A^m = sum f <d^t, x^m> and R^m = sum f <d^t, xhat^m> all six are closed forms:

    activation A/(C D)      reconstruction R/(C D)      error (A - R + C G)/(C D)

so one pass over the non-zero codes serves every latent, both models and all targets: of the same activations the numbers are
those of the published code (tests/parity). What differs: raw residual-stream units minus the training mean, where the
published code takes normalised ones (a ratio of models is then free of the two scales).
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mneme.dictionaries.crosscoder import Dictionary, coordinates, decoders, encode, pair_rows
from mneme.dictionaries.topk import SparseCodes, row_dots, weighted_row_sums
from mneme.errors import EmptyMask

_ROWS = 64
"""Decoder rows that are widened to float64 at once, so that they stay in the cache. A round number that was never varied."""


@dataclass(frozen=True)
class LatentSums:
    """Additive sums over tokens, float64: sums of disjoint sets of tokens add up to the sums of their union."""

    n_tokens: int
    n_fired: Int[Tensor, " latent"]
    code: Float[Tensor, " latent"]
    """Sum of f."""
    code_square: Float[Tensor, " latent"]
    """Sum of f^2 (C)."""
    activation: Float[Tensor, "latent model"]
    """Sum of f <d_tuned, x> (A)."""
    reconstruction: Float[Tensor, "latent model"]
    """Sum of f <d_tuned, xhat> (R); zero for a change dictionary, which reconstructs q only."""
    stream: Float[Tensor, "model d_model"]
    """Sum of x."""
    change_square: float
    """Sum of |x_tuned - x_base|^2."""

    def __add__(self, other: "LatentSums") -> "LatentSums":
        """Sums of both sets of tokens."""
        return LatentSums(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


@dataclass(frozen=True)
class LatentScores:
    """One entry per latent; NaN where a latent never fired (it has no ratio), and for targets its kind does not have."""

    change_energy: Float[Tensor, " latent"]
    """sum f^2 |d_tuned - d_base|^2 as a share of sum |h_tuned - h_base - mean|^2. Latents that overlap count twice."""
    firing_rate: Float[Tensor, " latent"]
    """Share of the tokens on which it fires."""
    mean_code: Float[Tensor, " latent"]
    """Mean code where it fires."""
    relative_norm: Float[Tensor, " latent"]
    """|d_tuned|/(|d_base| + |d_tuned|), 0.5 = equal. Change: the same of the two streams' projections on its direction."""
    cosine: Float[Tensor, " latent"]
    """Between d_base and d_tuned. Change: the product of the signs of the two projections."""
    beta_activation: Float[Tensor, "latent model"]
    """How much of the tuned decoder each model's stream holds per unit of code; 1 = as that decoder says."""
    nu_error: Float[Tensor, " latent"] | None
    """beta of the base / beta of the tuned error: high = the base has the direction too and the dictionary missed it."""
    nu_reconstruction: Float[Tensor, " latent"] | None
    """The same of the reconstructions: high = other latents give it to the base. Tuned-only: < 0.5 and nu_error < 0.2."""


def latent_sums(
    dictionary: Dictionary,
    codes: SparseCodes,
    m: Float[Tensor, "token d_model"],
    q: Float[Tensor, "token d_model"],
) -> LatentSums:
    """Sums over one batch of tokens (raw m and q, their codes from `encode`); cost: 6 codes * d_model."""
    n_tokens, n_latents = q.shape[0], dictionary.n_latents
    directions = decoders(dictionary)
    tuned = directions[:, 1].contiguous()
    streams = _centred_streams(dictionary, m, q)
    f, latent, token = codes.value.double(), codes.latent_index, codes.token_index
    zeros = torch.zeros(n_latents, dtype=torch.float64, device=q.device)
    activation, reconstruction = [], []
    bias = pair_rows(dictionary, (dictionary.b_dec * dictionary.scale)[None])[0]
    for model in (0, 1):
        dots = row_dots(streams[model], tuned, token, latent).double()
        activation.append(zeros.index_add(0, latent, f * dots))
        if dictionary.kind == "change":
            reconstruction.append(zeros)
            continue
        rebuilt = weighted_row_sums(directions[:, model].contiguous(), latent, token, codes.value, n_tokens) + bias[model]
        dots = row_dots(rebuilt, tuned, token, latent).double()
        reconstruction.append(zeros.index_add(0, latent, f * dots))
    return LatentSums(
        n_tokens=n_tokens,
        n_fired=torch.bincount(latent, minlength=n_latents),
        code=zeros.index_add(0, latent, f),
        code_square=zeros.index_add(0, latent, f * f),
        activation=torch.stack(activation, dim=1),
        reconstruction=torch.stack(reconstruction, dim=1),
        stream=torch.stack([streams[0].double().sum(0), streams[1].double().sum(0)]),
        change_square=float((streams[1] - streams[0]).double().square().sum()),
    )


def latent_scores(dictionary: Dictionary, sums: LatentSums) -> LatentScores:
    """Scores from the sums over all tokens. Error: EmptyMask with no tokens, or where the change is one vector throughout."""
    n = sums.n_tokens
    mean_change = (sums.stream[1] - sums.stream[0]) / max(n, 1)
    total = sums.change_square - n * float(mean_change.square().sum())
    if n == 0 or total <= 0.0:
        raise EmptyMask(
            f"The change does not vary over the {n} scored tokens, so no latent has a share: expected held-out tokens on "
            "which the models differ. Score more tokens, or report that only the mean changed."
        )
    base, tuned = decoders(dictionary).unbind(1)
    activation = sums.activation
    if dictionary.kind == "change":
        activation = activation - sums.code[:, None] * (tuned.double() @ (sums.stream / n).T)
    tuned_square = _row_products(tuned, tuned)
    beta = activation / (sums.code_square * tuned_square)[:, None]
    nu_error, nu_reconstruction = None, None
    if dictionary.kind == "change":
        sizes, cosine = beta.abs(), beta.sign().prod(1)
    else:
        overlap = torch.stack([_row_products(tuned, base), tuned_square], dim=1)
        sizes = torch.stack([_row_products(base, base), tuned_square], dim=1).sqrt()
        cosine = overlap[:, 0] / sizes.prod(1)
        error = activation - sums.reconstruction + sums.code_square[:, None] * overlap
        nu_error = error[:, 0] / error[:, 1]
        nu_reconstruction = sums.reconstruction[:, 0] / sums.reconstruction[:, 1]
    change = tuned - base
    return LatentScores(
        change_energy=sums.code_square * _row_products(change, change) / total,
        firing_rate=sums.n_fired / n,
        mean_code=sums.code / sums.n_fired,
        relative_norm=sizes[:, 1] / sizes.sum(1),
        cosine=cosine,
        beta_activation=beta,
        nu_error=nu_error,
        nu_reconstruction=nu_reconstruction,
    )


def score_latents(dictionary: Dictionary, batches: Iterable[tuple[Tensor, Tensor]]) -> LatentScores:
    """Encodes and scores a stream of held-out (m, q) batches, raw units. Error: EmptyMask as in `latent_scores`."""
    sums: LatentSums | None = None
    for m, q in batches:
        own = latent_sums(dictionary, encode(dictionary, m, q), m, q)
        sums = own if sums is None else sums + own
    if sums is None:
        raise EmptyMask("Cannot score latents on 0 tokens: expected at least one batch of held-out activations.")
    return latent_scores(dictionary, sums)


def _centred_streams(
    dictionary: Dictionary, m: Float[Tensor, "token d_model"], q: Float[Tensor, "token d_model"]
) -> list[Float[Tensor, "token d_model"]]:
    """h_base and h_tuned minus their training means; a change dictionary only knows that of q: half of it goes off each."""
    mean = pair_rows(dictionary, dictionary.mean[None])[0]
    pair = coordinates("batchtopk", m, q)
    return [pair[:, : dictionary.d_model] - mean[0], pair[:, dictionary.d_model :] - mean[1]]


def _row_products(left: Float[Tensor, "latent d_model"], right: Float[Tensor, "latent d_model"]) -> Float[Tensor, " latent"]:
    """<left[j], right[j]> in float64, in pieces that stay in the cache: the error target cancels, float32 would show."""
    pieces = [(left[i : i + _ROWS].double() * right[i : i + _ROWS].double()).sum(1) for i in range(0, left.shape[0], _ROWS)]
    return torch.cat(pieces)
