"""The mean of items that belong to two crossed kinds of clusters at once: a document and a word type.

Variance: clustered both ways (Cameron, Gelbach & Miller 2011; Miglioretti & Heagerty 2007), V_a + V_b - V_ab with the
corrections of `stats/linearised.py` for either kind. Where that is below V_ab it is lifted to it, which the papers do not do:
that clusters make a mean surer is not believed. (Lifted to the larger of V_a and V_b, both of few clusters, it was too long:
the larger of two noisy numbers.) Degrees of freedom: `both_ways`. Nothing is allowed for what was not seen; where values are
bounded and mostly 0, the caller does (`mneme.predict.knowledge`)."""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import special

from mneme.errors import EmptyMask
from mneme.results.record import Estimate, TooFew
from mneme.stats.linearised import degrees_by_data, degrees_by_size
from mneme.stats.rates import Rate

FEWEST_CROSSED = 8
"""Clusters of either kind from which on the interval holds."""


class ClusterKind:
    """One kind of clusters: who belongs where, and what follows from the sizes alone."""

    def __init__(self, names: Int[ndarray, " item"], weights: Float[ndarray, " item"]) -> None:
        found, self.index = np.unique(names, return_inverse=True)
        self.n = len(found)
        self.sizes = np.bincount(self.index, weights=weights, minlength=self.n)
        self.degrees = degrees_by_size(self.sizes)
        share = self.sizes / self.sizes.sum()
        self.leverage = np.sqrt(1 - np.minimum(share, 1 - 1e-9))

    def variance(self, residuals: Float[ndarray, " item"]) -> tuple[float, float]:
        """(variance of the sum of the residuals clustered by this kind alone, its degrees of freedom)."""
        sums = np.bincount(self.index, weights=residuals, minlength=self.n) / self.leverage
        found = float((sums**2).sum())
        return found, math.sqrt(self.degrees * min(self.degrees, float(degrees_by_data(sums)))) if found > 0 else self.degrees


ClusterKinds = tuple[ClusterKind, ClusterKind, ClusterKind]
"""The two kinds, and their cells: items that share both clusters."""


def kinds_of(first: Int[ndarray, " item"], second: Int[ndarray, " item"], weights: Float[ndarray, " item"]) -> ClusterKinds:
    """The two kinds of clusters and their cells."""
    one, two = ClusterKind(first, weights), ClusterKind(second, weights)
    return one, two, ClusterKind(one.index * two.n + two.index, weights)


def two_way(
    values: Float[ndarray, " item"],
    first: Int[ndarray, " item"],
    second: Int[ndarray, " item"],
    unit: str,
    *,
    weights: Float[ndarray, " item"] | None = None,
    level: float = 0.95,
    identical: bool = False,
) -> Rate | TooFew:
    """Mean of `values` (with `weights` above 0: their weighted mean), of which each belongs to the cluster `first` and the
    cluster `second`, with a two-sided p of 0.

    TooFew below 8 clusters of either kind, or without any spread. `estimate.n` counts the scarcer kind. `identical` says that
    the two models are the same: then, and only where every value is 0, the interval is [0, 0] and p 1. No other call returns a
    width of 0.

    Errors: EmptyMask when there is no item.
    """
    if len(values) == 0:
        raise EmptyMask("A mean over no items has no value: expected at least one item.")
    values = values.astype(np.float64)
    share = np.ones(len(values)) if weights is None else weights / weights.mean()
    kinds = kinds_of(first, second, share)
    clusters, value = min(kind.n for kind in kinds[:2]), float((share * values).mean())
    if identical and not values.any():
        estimate = Estimate(value=0.0, low=0.0, high=0.0, unit=unit, n=clusters)
        return Rate(
            estimate=estimate, standard_error=0.0, degrees=float(max(clusters - 1, 1)), p_value=1.0, answers=len(values)
        )
    constant = bool((values == values[0]).all())
    if clusters < FEWEST_CROSSED or constant:
        return TooFew(value=value, unit=unit, n=clusters, needed=max(FEWEST_CROSSED, clusters + 1 if constant else 0))
    variance, degrees, _ = variance_of(share * (values - value) / len(values), kinds)
    error = math.sqrt(variance)
    half = float(special.stdtrit(degrees, 0.5 + level / 2)) * error
    p_value = float(min(1.0, 2 * special.stdtr(degrees, -abs(value) / error)))
    estimate = Estimate(value=value, low=value - half, high=value + half, unit=unit, n=clusters)
    return Rate(estimate=estimate, standard_error=error, degrees=degrees, p_value=p_value, answers=len(values))


def variance_of(residuals: Float[ndarray, " item"], kinds: ClusterKinds) -> tuple[float, float, float]:
    """(two-way clustered variance of the sum of the residuals, degrees of freedom, those that the sizes alone allow)."""
    (one, one_degrees), (two, two_degrees) = (kind.variance(residuals) for kind in kinds[:2])
    cells = float((np.bincount(kinds[2].index, weights=residuals, minlength=kinds[2].n) ** 2).sum())
    most = min(kind.degrees for kind in kinds[:2])
    if max(one, two) <= 0:
        return 0.0, min(one_degrees, two_degrees), most
    whole, joint = both_ways(*(np.array([part]) for part in (one, two, cells, one_degrees, two_degrees)))
    return float(whole[0]), float(joint[0]), most


def both_ways(
    one: Float[ndarray, " draw"],
    two: Float[ndarray, " draw"],
    cells: Float[ndarray, " draw"],
    one_degrees: Float[ndarray, " draw"],
    two_degrees: Float[ndarray, " draw"],
) -> tuple[Float[ndarray, " draw"], Float[ndarray, " draw"]]:
    """(variance, degrees of freedom) from the variances clustered by either kind, above 0, and by their cells.

    The two are read off the same residuals, so that their sum varies at most as their standard deviations together do:
    1 / sqrt(degrees) is the mean of theirs, weighted by the variances. Satterthwaite's number takes them for independent, and
    claims .09 for .05 with 10 word types; the weighted quantile of t (Cochran & Cox 1950) covers up to .98."""
    share = one / (one + two)
    degrees = (share / np.sqrt(one_degrees) + (1 - share) / np.sqrt(two_degrees)) ** -2
    return np.maximum(one + two - cells, cells), np.maximum(1.0, degrees)
