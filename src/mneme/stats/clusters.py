"""Means over clusters: bootstrap and Student's t on the linearised ratio. numpy only; seeds are arguments.

Tokens of one passage are not independent, so every interval here resamples whole clusters (passages), never tokens
(Efron & Tibshirani 1993, ch. 8; Cameron, Gelbach & Miller 2008). Where arms are compared, they are paired on the cluster.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mneme.errors import EmptyMask
from mneme.results.record import Estimate
from mneme.stats.distributions import normal_cdf, student_t_quantile

_BLOCK_WEIGHTS = 1 << 20


def bootstrap_weights(n_clusters: int, n_resamples: int, seed: int) -> Float[ndarray, "resample cluster"]:
    """Multinomial resampling weights: row r says how often each cluster is drawn in resample r (rows sum to `n_clusters`)."""
    if n_clusters < 1:
        raise EmptyMask("Cannot resample 0 clusters: expected at least 1 passage with tokens to average over.")
    return np.concatenate(list(_resampled(n_clusters, n_resamples, seed)))


def _resampled(n_clusters: int, n_resamples: int, seed: int) -> Iterator[Float[ndarray, "resample cluster"]]:
    """The rows of `bootstrap_weights`, a few MB at a time."""
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK_WEIGHTS // n_clusters)
    for first in range(0, n_resamples, rows):
        size = min(rows, n_resamples - first)
        yield generator.multinomial(n_clusters, np.full(n_clusters, 1.0 / n_clusters), size=size).astype(np.float64)


def ratio_of_sums(
    numerators: Float[ndarray, " cluster"],
    denominators: Float[ndarray, " cluster"],
    unit: str,
    *,
    seed: int,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """sum(numerators) / sum(denominators) with a clustered interval; `n` counts clusters with a denominator > 0.

    The interval is studentised by the linearised standard error with Student's t (n - 1) where n < 30 clusters, where the
    percentile bootstrap is too narrow, and the percentile bootstrap from 30 clusters on. One cluster has no variance: its
    interval is value +- (1 + |value|), wide enough to say nothing about a share or a probability.

    Errors: EmptyMask when every denominator is 0.
    """
    return ratios_of_sums(numerators[None], denominators, [unit], seed=seed, n_resamples=n_resamples, level=level)[0]


def ratios_of_sums(
    numerators: Float[ndarray, "figure cluster"],
    denominators: Float[ndarray, " cluster"],
    units: Sequence[str],
    *,
    seed: int,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> list[Estimate]:
    """`ratio_of_sums` of several numerators over one denominator, from the same resamples. Errors: as there."""
    used = denominators > 0
    n = int(used.sum())
    if n == 0:
        raise EmptyMask("A mean over no tokens has no value: expected at least one cluster with a positive weight.")
    above, below = numerators[:, used], denominators[used]
    if n < 30:
        return [_few(numerator, below, unit, level) for numerator, unit in zip(above, units, strict=True)]
    sums = np.concatenate([above, below[None]]).T
    resampled = np.concatenate([weights @ sums for weights in _resampled(n, n_resamples, seed)])
    resampled = resampled[resampled[:, -1] > 0]
    found = []
    for index, unit in enumerate(units):
        samples = resampled[:, index] / resampled[:, -1]
        low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
        value = float(above[index].sum() / below.sum())
        found.append(Estimate(value=value, low=float(low), high=float(high), unit=unit, n=n))
    return found


def _few(numerator: Float[ndarray, " cluster"], denominator: Float[ndarray, " cluster"], unit: str, level: float) -> Estimate:
    n = len(denominator)
    value = float(numerator.sum() / denominator.sum())
    if n == 1:
        return Estimate(value=value, low=value - 1.0 - abs(value), high=value + 1.0 + abs(value), unit=unit, n=1)
    residual = (numerator - value * denominator) / denominator.mean()
    error = math.sqrt(float((residual**2).sum()) / (n * (n - 1)))
    half = student_t_quantile(0.5 + level / 2, n - 1) * error
    return Estimate(value=value, low=value - half, high=value + half, unit=unit, n=n)


def standard_error(estimate: Estimate) -> float:
    """Half the 95 % interval over 1.96: the standard error that a normal interval of that width would have."""
    return max(estimate.high - estimate.low, 0.0) / (2 * 1.959964)


def expanded_interval(
    drawn: Float[ndarray, " resample"], value: float, clusters: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a figure without a formula, widened for few clusters (Hesterberg 2015, "expanded percentile").

    Quantiles at the normal's probability of -sqrt(n / (n - 1)) t(n - 1): a bootstrap of n clusters is too narrow by that much.
    Holds the value. For shares use `clustered_rate`, which also knows what was not seen.
    """
    wide = -math.sqrt(clusters / max(clusters - 1, 1)) * student_t_quantile(0.5 + level / 2, max(clusters - 1, 1))
    tail = normal_cdf(wide)
    low, high = np.quantile(np.append(drawn, value), [tail, 1 - tail])
    return float(low), float(high)
