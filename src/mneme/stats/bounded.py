"""The mean of changes that lie between -1 and 1 and are mostly next to nothing: a word lost here, one gained there.

Student's t of such changes is as short as what was seen, and holds a true loss of 8 points at ten passages half of the time.
Joining it in quadrature with the share of words that so few would not have shown holds everywhere, and holds .97 to 1 where
.95 was meant: of what is rare, the interval must reach further up than down. So losses and gains are taken apart, each a mean
on [0, 1] with a score interval (Wilson 1927), and joined again by MOVER (Zou & Donner 2008) with the correlation that makes
their variances add up. Wilson's 1 / n is here the variance of the mean over m (1 - m), clustered both ways (`crossed`) and
with one whole item more than was seen: where nothing was seen the bound is that of n independent items which show none,
1 - 0.025^(1/n), and it fades as losses are seen. That addition is ours."""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import special

from mneme.results.record import Estimate, TooFew
from mneme.stats.crossed import FEWEST_CROSSED, ClusterKinds, kinds_of, variance_of
from mneme.stats.linearised import ASSUMED_ICC
from mneme.stats.rates import Rate

TAIL = 0.025
"""Of either side of a 95 % interval."""
_HALF = 0.5
"""Items, wholly lost, of which one half tells of the unseen and one of the seen where that is all: Jeffreys' half answer."""
_ALIKE = 1e-15
"""Variances and weights below it are rounding."""


def bounded_change(
    values: Float[ndarray, " item"],
    first: Int[ndarray, " item"],
    second: Int[ndarray, " item"],
    unit: str,
    *,
    weights: Float[ndarray, " item"] | None = None,
    identical: bool = False,
) -> Rate | TooFew:
    """Mean of `values`, changes from -1 to 1 (with `weights` above 0: their weighted mean), of which each belongs to the
    cluster `first` and the cluster `second`; with its 95 % interval and a two-sided p of 0.

    The p-value is that of `two_way`, of what was seen alone: 1 where every value is 0, and the interval may hold 0 where it is
    small. TooFew below 8 clusters of either kind. `identical`: as for `two_way`. No other call returns a width of 0.
    """
    share = np.ones(len(values)) if weights is None else weights / weights.mean()
    kinds = kinds_of(first, second, share)
    clusters, value = min(kind.n for kind in kinds[:2]), float((share * values).mean())
    if identical and not values.any():
        estimate = Estimate(value=0.0, low=0.0, high=0.0, unit=unit, n=clusters)
        degrees = float(max(clusters - 1, 1))
        return Rate(estimate=estimate, standard_error=0.0, degrees=degrees, p_value=1.0, answers=len(values))
    if clusters < FEWEST_CROSSED:
        return TooFew(value=value, unit=unit, n=clusters, needed=FEWEST_CROSSED)
    sides = [np.maximum(-values, 0.0), np.maximum(values, 0.0)]
    means = [float((share * side).mean()) for side in sides]
    parts = [variance_of(share * (side - mean) / len(values), kinds)[0] for side, mean in zip(sides, means, strict=True)]
    joint, seen, most = variance_of(share * (values - value) / len(values), kinds)
    # Few items that carry all of the variance make Student's t long, and the score interval allows for few by itself.
    t = float(special.stdtrit(math.sqrt(seen * most), 1 - TAIL))
    n = independent_items(share, kinds)
    squares = [float((share * side**2).mean()) for side in sides]
    loss, gain = (score_bounds(*side, t, n) for side in zip(means, squares, parts, strict=True))
    product = math.sqrt(parts[0] * parts[1])
    correlation = float(np.clip((sum(parts) - joint) / (2 * product), -1, 1)) if product > _ALIKE else 0.0
    low = value - _joined(means[1] - gain[0], loss[1] - means[0], correlation)
    high = value + _joined(gain[1] - means[1], means[0] - loss[0], correlation)
    error = math.sqrt(joint)
    p_value = float(min(1.0, 2 * special.stdtr(seen, -abs(value) / error))) if joint > 0 else float(value == 0)
    estimate = Estimate(value=value, low=low, high=high, unit=unit, n=clusters)
    return Rate(estimate=estimate, standard_error=error, degrees=seen, p_value=p_value, answers=len(values))


def score_bounds(mean: float, square: float, variance: float, t: float, n: float) -> tuple[float, float]:
    """Wilson's interval of a mean on [0, 1] with this variance (head of this file). `square`: mean square, by which n
    independent items show how much was seen."""
    whole, unseen = mean * (1 - mean), -math.expm1(math.log(TAIL) / n)
    blind = _HALF / (_HALF + n * square)
    width = (1 - blind) * t * t * variance / max(whole, _ALIKE) + blind * unseen / (1 - unseen)
    half = math.sqrt(width * width / 4 + width * whole)
    return max((mean + width / 2 - half) / (1 + width), 0.0), min((mean + width / 2 + half) / (1 + width), 1.0)


def _joined(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(one * one + other * other - 2 * correlation * one * other, 0.0))


def independent_items(weight: Float[ndarray, " item"], kinds: ClusterKinds) -> float:
    """How many independent items these are worth: Kish's (1965) number for unequal weights over the design effect of clusters
    that share `ASSUMED_ICC` of their variance."""
    squares = float((weight**2).sum())
    effect = 1 + sum(ASSUMED_ICC * (float((kind.sizes**2).sum()) / squares - 1) for kind in kinds[:2])
    return max(1.0, float(weight.sum()) ** 2 / squares / effect)
