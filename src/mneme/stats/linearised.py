"""The sampling variance of a ratio of sums over clusters, and how well few, unequal or mostly empty clusters tell it.

Variance: that of the linearised ratio with the leverage correction CR2 (Bell & McCaffrey 2002; Pustejovsky & Tipton 2018),
which is unbiased where the variance of a cluster grows with its size. Degrees of freedom, for Student's t: the smaller of
- `degrees_by_size`: Satterthwaite's number under a working correlation within clusters. For hits, whose logit interval with
  half an answer on either side is long already for few questions, the geometric mean of it and of clusters - 1:
  Satterthwaite's alone is 1.9 for five lognormal sizes, and covers 98 to 100 %;
- `degrees_by_data`: 2 V^2 / var(V), where the variance of V is that of its own terms (their fourth moment). It is small where
  one or two clusters carry all of the variance, as with rare answers: 50 questions of which 4 have a hit tell the variance as
  4 do. Both were judged by simulation (benchmarks/coverage.py)."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

ASSUMED_ICC = 0.1
"""Intra-class correlation of answers to one question where it cannot be estimated (no answer differs), and in the working
model of the degrees of freedom: the median over 25 published fine-tuned models is 0.107."""


def residuals_of(
    sums: Float[ndarray, "*draw cluster"], counts: Float[ndarray, "*draw cluster"]
) -> tuple[Float[ndarray, "*draw"], Float[ndarray, "*draw cluster"]]:
    """(ratio sum(sums) / sum(counts), CR2 residual of every cluster: the variance of the ratio is the sum of their
    squares)."""
    total = counts.sum(-1, keepdims=True)
    value = sums.sum(-1, keepdims=True) / total
    share = np.minimum(counts / total, 1 - 1e-9)
    return value[..., 0], (sums - value * counts) / total / np.sqrt(1 - share)


def degrees_by_size(counts: Float[ndarray, " cluster"], correlation: float = ASSUMED_ICC, *, hits: bool = False) -> float:
    """Degrees of freedom that the sizes of the clusters allow (head of this file); 1 for a single cluster.

    `correlation` is that of the working model; 1 where `counts` are no counts (nats, seconds), so that their unit is no
    matter."""
    counts = counts[counts > 0]  # a cluster without weight tells nothing
    clusters = len(counts)
    if clusters < 2:
        return 1.0
    share = counts / counts.sum()
    own = counts * (1 + (counts - 1) * correlation)
    weight = 1 / (1 - np.minimum(share, 1 - 1e-9))
    whole = own.sum()
    # tr(A S A S) of Bell & McCaffrey in sums: off the diagonal g_ij = h_i h_j (whole - r_i - r_j).
    relative = own / share
    pairs = weight * share**2
    b0, b1, b2 = pairs.sum(), (pairs * relative).sum(), (pairs * relative**2).sum()
    squares = whole**2 * b0**2 + 2 * b0 * b2 - 4 * whole * b0 * b1 + 2 * b1**2
    squares -= (pairs**2 * (whole - 2 * relative) ** 2).sum()
    diagonal = own - 2 * share * own + share**2 * whole
    squares += (weight**2 * diagonal**2).sum()
    satterthwaite = float((weight * diagonal).sum() ** 2 / max(squares, 1e-300))
    found = np.sqrt(satterthwaite * (clusters - 1)) if hits else satterthwaite
    return float(np.clip(found, 1.0, clusters - 1.0))


def degrees_by_data(residuals: Float[ndarray, "*draw cluster"]) -> Float[ndarray, "*draw"]:
    """Degrees of freedom that the squared residuals show; clusters - 1 where they are all equal, never below 1."""
    clusters = residuals.shape[-1]
    squares = residuals**2
    variance, fourth = squares.sum(-1), (squares**2).sum(-1)
    spread = fourth - variance**2 / clusters
    # Squares that are equal but for rounding have no spread.
    seen = spread > 1e-12 * fourth
    found = 2 * variance**2 / np.where(seen, spread, 1.0)
    return np.asarray(np.clip(np.where(seen, found, clusters - 1.0), 1.0, max(clusters - 1.0, 1.0)))


def assumed_size(counts: Float[ndarray, " cluster"]) -> float:
    """Independent answers that these are worth under the assumed correlation; 1 / 0.1 at most for a single cluster."""
    total = float(counts.sum())
    return total / (1 + max(float((counts**2).sum()) / total - 1, 0.0) * ASSUMED_ICC)
