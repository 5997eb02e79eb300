"""The mean of items that belong to two crossed kinds of clusters at once: a document and a word type.

Variance: clustered both ways (Cameron, Gelbach & Miller 2011; Miglioretti & Heagerty 2007), V_a + V_b - V_ab with the
corrections of `stats/linearised.py` for either kind. Where that is below the larger of V_a and V_b it is lifted to it, which
the papers do not do: it makes intervals longer, never shorter. Degrees of freedom:
Cochran and Cox's over the two. Bounded values (flips of an answer in -1, 0, 1; changes of a probability) are read as a rate of
gains minus a rate of losses, each on the number of independent items with the same variance, and joined by MOVER (Zou & Donner
2008): where no gain or no loss was seen, the bound is that of an event that was not seen, not 0. Unbounded values (nats) take
Student's t."""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import special

from mneme.errors import EmptyMask
from mneme.results.record import Estimate, TooFew
from mneme.stats.linearised import ASSUMED_ICC, degrees_by_data, degrees_by_size
from mneme.stats.rates import Arm, Rate, change_bounds, touches_zero

FEWEST_CROSSED = 5
"""Clusters of either kind from which on the interval holds for bounded values."""
FEWEST_UNBOUNDED = 8
"""The same for numbers without a bound, where nothing is known of what was not seen."""


class ClusterKind:
    """One kind of clusters: who belongs where, and what follows from the sizes alone."""

    def __init__(self, names: Int[ndarray, " item"], bounded: bool) -> None:
        found, self.index = np.unique(names, return_inverse=True)
        self.n = len(found)
        self.sizes = np.bincount(self.index, minlength=self.n).astype(np.float64)
        self.degrees = degrees_by_size(self.sizes, hits=bounded)
        share = self.sizes / self.sizes.sum()
        self.leverage = np.sqrt(1 - np.minimum(share, 1 - 1e-9))

    def variance(self, residuals: Float[ndarray, " item"]) -> tuple[float, float]:
        """(variance of the sum of the residuals clustered by this kind alone, its degrees of freedom)."""
        sums = np.bincount(self.index, weights=residuals, minlength=self.n) / self.leverage
        found = float((sums**2).sum())
        return found, min(self.degrees, float(degrees_by_data(sums))) if found > 0 else self.degrees

    def excess(self) -> float:
        """How much more than one item a cluster holds, as its items see it."""
        return float((self.sizes**2).sum() / self.sizes.sum()) - 1


ClusterKinds = tuple[ClusterKind, ClusterKind, ClusterKind]
"""The two kinds, and their cells: items that share both clusters."""


def kinds_of(first: Int[ndarray, " item"], second: Int[ndarray, " item"], *, bounded: bool) -> ClusterKinds:
    """Who belongs where."""
    one, two = ClusterKind(first, bounded), ClusterKind(second, bounded)
    return one, two, ClusterKind(one.index * two.n + two.index, bounded)


def two_way(
    values: Float[ndarray, " item"],
    first: Int[ndarray, " item"],
    second: Int[ndarray, " item"],
    unit: str,
    *,
    bound: float | None = None,
    level: float = 0.95,
    identical: bool = False,
) -> Rate | TooFew:
    """Mean of `values`, of which each belongs to the cluster `first` and the cluster `second`, with a two-sided p of 0.

    `bound`: no value can be larger in size (1 for flips in -1, 0, 1). It needs 5 clusters of either kind; numbers without a
    bound need 8, and some spread. `estimate.n` counts the scarcer kind. `identical` says that the two models are the same:
    then, and only where every value is 0, the interval is [0, 0] and p 1. No other call returns a width of 0.

    Errors: EmptyMask when there is no item.
    """
    if len(values) == 0:
        raise EmptyMask("A mean over no items has no value: expected at least one item.")
    values = values.astype(np.float64)
    kinds = kinds_of(first, second, bounded=bound is not None)
    clusters, value = min(kind.n for kind in kinds[:2]), float(values.mean())
    if identical and not values.any():
        estimate = Estimate(value=0.0, low=0.0, high=0.0, unit=unit, n=clusters)
        return Rate(
            estimate=estimate, standard_error=0.0, degrees=float(max(clusters - 1, 1)), p_value=1.0, answers=len(values)
        )
    fewest = FEWEST_UNBOUNDED if bound is None else FEWEST_CROSSED
    constant = bound is None and bool((values == values[0]).all())
    if clusters < fewest or constant:
        return TooFew(value=value, unit=unit, n=clusters, needed=max(fewest, clusters + 1 if constant else 0))
    if bound is not None:
        return _bounded(values / bound, kinds, unit, level, bound)
    variance, degrees = _variance((values - value) / len(values), kinds)
    error = math.sqrt(variance)
    half = float(special.stdtrit(degrees, 0.5 + level / 2)) * error
    p_value = float(min(1.0, 2 * special.stdtr(degrees, -abs(value) / error)))
    estimate = Estimate(value=value, low=value - half, high=value + half, unit=unit, n=clusters)
    return Rate(estimate=estimate, standard_error=error, degrees=degrees, p_value=p_value, answers=len(values))


def _bounded(shares: Float[ndarray, " item"], kinds: ClusterKinds, unit: str, level: float, bound: float) -> Rate:
    arms = crossed_arms(shares, kinds)
    losses, gains, joint = arms
    low, high = change_bounds(losses, gains, joint, special.stdtrit(joint.degrees, 0.5 + level / 2))
    estimate = Estimate(
        value=bound * float(shares.mean()),
        low=bound * max(float(low[0]), -1.0),
        high=bound * min(float(high[0]), 1.0),
        unit=unit,
        n=min(kind.n for kind in kinds[:2]),
    )
    error = bound * math.sqrt(float(joint.variance[0]))
    return Rate(
        estimate=estimate,
        standard_error=error,
        degrees=float(joint.degrees[0]),
        p_value=touches_zero(*arms),
        answers=len(shares),
    )


def crossed_arms(shares: Float[ndarray, " item"], kinds: ClusterKinds) -> tuple[Arm, Arm, Arm]:
    """(losses, gains, their difference) of values in [-1, 1]."""
    n = len(shares)
    assumed = n / (1 + sum(max(kind.excess(), 0.0) for kind in kinds[:2]) * ASSUMED_ICC)
    floor = n / assumed / (n + 2) ** 2

    def arm(parts: Float[ndarray, " item"], signed: bool) -> Arm:
        value = float(parts.mean())
        residuals = (parts - value) / n
        variance, degrees = _variance(residuals, kinds)
        spread = value * (1 - value)
        worth = min(spread / variance, float(n)) if variance > 0 and spread > 0 else assumed
        return Arm(
            value=np.array([0.0 if signed else value]),
            variance=np.array([max(variance, floor) if signed else variance]),
            degrees=np.array([degrees]),
            effective=np.array([worth]),
            residuals=residuals[None, None],
            counts=np.ones((1, n)),
            floor=floor,
        )

    losses, gains, difference = arm(np.maximum(-shares, 0.0), False), arm(np.maximum(shares, 0.0), False), arm(shares, True)
    fewest = np.minimum(losses.effective, gains.effective)
    joint = Arm(
        value=difference.value,
        variance=difference.variance,
        degrees=difference.degrees,
        effective=np.minimum(fewest, assumed),
        residuals=difference.residuals,
        counts=difference.counts,
        floor=floor,
    )
    return losses, gains, joint


def _variance(residuals: Float[ndarray, " item"], kinds: ClusterKinds) -> tuple[float, float]:
    """(two-way clustered variance of the sum of the residuals, degrees of freedom)."""
    (one, one_degrees), (two, two_degrees) = (kind.variance(residuals) for kind in kinds[:2])
    cells = float((np.bincount(kinds[2].index, weights=residuals, minlength=kinds[2].n) ** 2).sum())
    whole = max(one + two - cells, one, two)
    if whole <= 0:
        return 0.0, min(one_degrees, two_degrees)
    # Cochran & Cox 1950, as for training seeds (`stats/rates.py`): Satterthwaite's number over the two is read off estimates,
    # and claims .09 for .05 with 10 word types.
    t = (one * special.stdtrit(one_degrees, 0.975) + two * special.stdtrit(two_degrees, 0.975)) / (one + two)
    return whole, float(max(1.0, special.stdtridf(0.975, t)))
