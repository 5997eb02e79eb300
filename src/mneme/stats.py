"""Statistics of change: clustered bootstrap, exact McNemar, Holm and Benjamini-Hochberg. numpy only; seeds are arguments.

Tokens of one passage are not independent, so every interval here resamples whole clusters (passages), never tokens
(Efron & Tibshirani 1993, ch. 8; Cameron, Gelbach & Miller 2008). Where arms are compared, they are paired on the cluster.
"""

import math

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from mneme.errors import EmptyMask
from mneme.results import Estimate


def bootstrap_weights(n_clusters: int, n_resamples: int, seed: int) -> Float[ndarray, "resample cluster"]:
    """Multinomial resampling weights: row r says how often each cluster is drawn in resample r (rows sum to `n_clusters`)."""
    if n_clusters < 1:
        raise EmptyMask("Cannot resample 0 clusters: expected at least 1 passage with tokens to average over.")
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(n_clusters, np.full(n_clusters, 1.0 / n_clusters), size=n_resamples)
    return draws.astype(np.float64)


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
    used = denominators > 0
    numerator, denominator = numerators[used], denominators[used]
    n = int(used.sum())
    if n == 0:
        raise EmptyMask("A mean over no tokens has no value: expected at least one cluster with a positive weight.")
    value = float(numerator.sum() / denominator.sum())
    if n == 1:
        return Estimate(value=value, low=value - 1.0 - abs(value), high=value + 1.0 + abs(value), unit=unit, n=1)
    if n < 30:
        residual = (numerator - value * denominator) / denominator.mean()
        error = math.sqrt(float((residual**2).sum()) / (n * (n - 1)))
        half = student_t_quantile(0.5 + level / 2, n - 1) * error
        return Estimate(value=value, low=value - half, high=value + half, unit=unit, n=n)
    weights = bootstrap_weights(n, n_resamples, seed)
    below = weights @ denominator
    samples = (weights @ numerator)[below > 0] / below[below > 0]
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=value, low=float(low), high=float(high), unit=unit, n=n)


def standard_error(estimate: Estimate) -> float:
    """Half the 95 % interval over 1.96: the standard error that a normal interval of that width would have."""
    return max(estimate.high - estimate.low, 0.0) / (2 * 1.959964)


def student_t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t by bisection on its distribution function (regularised incomplete beta by continued fraction).

    Accurate to 1e-8; `probability` in (0.5, 1).
    """
    low, high = 0.0, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        if student_t_cdf(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def student_t_cdf(value: float, degrees: int) -> float:
    """P(T <= value) for Student's t with `degrees` degrees of freedom, value >= 0."""
    x = degrees / (degrees + value * value)
    return 1.0 - 0.5 * _incomplete_beta(degrees / 2, 0.5, x)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b) (Lentz's continued fraction, Numerical Recipes 6.4)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    total = d
    for m in range(1, 400):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + numerator * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + numerator / c
            c = c if abs(c) > tiny else tiny
            step = c * d
            total *= step
        if abs(step - 1.0) < 1e-12:
            break
    return front * total / a


def normal_cdf(value: float) -> float:
    """P(Z <= value) of the standard normal."""
    return 0.5 * math.erfc(-value / math.sqrt(2.0))


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided exact McNemar p: of `lost + gained` discordant pairs, how unusual is this split under a fair coin
    (McNemar 1947; exact binomial). 1.0 when there is no discordant pair."""
    n, k = lost + gained, min(lost, gained)
    if n == 0:
        return 1.0
    log_half = n * math.log(0.5)
    tail = sum(math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + log_half) for i in range(k + 1))
    return min(1.0, 2.0 * tail)


def holm(p_values: Float[ndarray, " test"]) -> Float[ndarray, " test"]:
    """Holm (1979) adjusted p-values, in the order given: family-wise error is controlled under any dependence."""
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate((n - np.arange(n)) * p_values[order])
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def benjamini_hochberg(p_values: Float[ndarray, " test"]) -> Float[ndarray, " test"]:
    """Benjamini & Hochberg (1995) q-values, in the order given: reject where q <= rate to hold the false-discovery rate."""
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.minimum.accumulate((p_values[order] * n / (np.arange(n) + 1))[::-1])[::-1]
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def balanced_accuracy(said: Bool[ndarray, " case"], true: Bool[ndarray, " case"]) -> float:
    """Mean of the hit rate on true cases and the rejection rate on false ones.

    Errors: EmptyMask when either kind of case is missing.
    """
    if not true.any() or true.all():
        raise EmptyMask("Balanced accuracy needs both true and false cases; only one kind was given.")
    return float((said[true].mean() + (~said[~true]).mean()) / 2)
