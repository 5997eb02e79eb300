"""Clusters drawn again whole (Efron & Tibshirani 1993, ch. 8; Cameron, Gelbach & Miller 2008): tokens of one passage are not
independent. Seeds are arguments; where arms are compared, they share the draws."""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mneme.errors import EmptyMask
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
