"""How well a dictionary explains the change, and which k of a sweep to keep."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mneme.dictionaries.crosscoder import Dictionary, decode_change, encode
from mneme.errors import BadOption, EmptyMask

_CLEAR_ELBOW = 0.3


@dataclass(frozen=True)
class Quality:
    """Held-out quality of a dictionary."""

    unexplained_change: float
    """Share of |q - mean(q)|^2 that is left; 0 = all explained, above 1 = worse than the mean."""
    l0: float
    """Mean number of latents that fire on a token."""
    dead_share: float
    """Share of the latents that fired on none of these tokens."""
    n_tokens: int


def measure_quality(dictionary: Dictionary, m: Float[Tensor, "token d_model"], q: Float[Tensor, "token d_model"]) -> Quality:
    """Quality on held-out tokens (raw units). Error: EmptyMask with no tokens or where q is the same vector on all of them."""
    if q.shape[0] == 0:
        raise EmptyMask("Cannot judge a dictionary on 0 held-out tokens: expected at least two.")
    total = float((q - q.mean(0)).double().square().sum())
    if total == 0.0:
        raise EmptyMask(
            f"The change is the same vector on all {q.shape[0]} held-out tokens, so there is no share of it to explain. "
            "Use more tokens, or report that only the mean changed."
        )
    codes = encode(dictionary, m, q)
    left = float((q - decode_change(dictionary, codes, q.shape[0])).double().square().sum())
    n_alive = int(torch.unique(codes.latent_index).numel())
    return Quality(
        unexplained_change=left / total,
        l0=codes.value.numel() / q.shape[0],
        dead_share=1.0 - n_alive / dictionary.n_latents,
        n_tokens=q.shape[0],
    )


def unexplained_change(dictionary: Dictionary, m: Float[Tensor, "token d_model"], q: Float[Tensor, "token d_model"]) -> float:
    """Share of the centred held-out q that the dictionary leaves unexplained. Errors: as `measure_quality`.

    This, not explained variance, tells whether a dictionary of two models says anything about their difference: a crosscoder
    can reconstruct both and still be at 1.
    """
    return measure_quality(dictionary, m, q).unexplained_change


def choose_k(curve: Sequence[tuple[float, float]]) -> float:
    """The k at the elbow of (k, unexplained change) over a sweep; several seeds of one k are averaged.

    k too large by a factor of three shatters rare directions, and unexplained change never tells (it only falls), so the
    elbow decides: the point furthest below the chord (Satopaa et al. 2011, "Kneedle") in log k, both axes scaled to 1, with
    "nothing explained" (1.0) one octave below the smallest k, so that the smallest k can be the elbow as well.
    A change spread over everything a model does has no elbow in log k: no point is 0.3 below the chord. Then, where the
    sweep explains more than half of it, the elbow of diminishing returns decides: the same in k itself, from (0, 1.0), and
    the largest k for a straight line, whose elbow lies above the sweep. Else, or with one point or no gain: the smallest k.

    Error: BadOption for an empty curve, a k that is not positive, or a share that is not a number.
    """
    if not curve:
        raise BadOption("Cannot choose k from an empty sweep: expected at least one (k, unexplained change).")
    for k, left in curve:
        if not (k > 0 and math.isfinite(left)):
            raise BadOption(f"Cannot choose k: ({k}, {left}) is not a positive k with a finite share of unexplained change.")
    shares: dict[float, list[float]] = {}
    for k, left in curve:
        shares.setdefault(k, []).append(left)
    ks = sorted(shares)
    means = [sum(shares[k]) / len(shares[k]) for k in ks]
    best = min(means)
    if len(ks) == 1 or best >= 1.0:
        return ks[0]
    start = ks[0] / 2
    width = math.log(ks[-1] / start)
    below = [(1.0 - left) / (1.0 - best) - math.log(k / start) / width for k, left in zip(ks, means, strict=True)]
    if max(below) >= _CLEAR_ELBOW or best >= 0.5:
        return ks[below.index(max(below))] if max(below) > 1e-9 else ks[0]
    returns = [(1.0 - left) / (1.0 - best) - k / ks[-1] for k, left in zip(ks, means, strict=True)]
    return ks[returns.index(max(returns))] if max(returns) > 1e-9 else ks[-1]
