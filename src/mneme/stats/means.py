"""Means and ratios of clustered numbers without a scale (nats, norms, shares of a change): intervals and p-values.

Student's t on the linearised ratio (`stats/linearised.py`) is too short on one side where few numbers are skewed. The
studentised bootstrap of clusters (Efron & Tibshirani 1993, ch. 12; Hall 1992) sees the skewness and is unstable for few
clusters. Taken is, on either side, the longer of the two: the quantiles of t are stretched by what the bootstrap says at 95 %.
Stretching instead of replacing them keeps p-values below 1 / resamples, which corrections over many claims need."""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import special

from mneme.errors import EmptyMask
from mneme.results.record import Estimate, TooFew
from mneme.stats.clusters import bootstrap_weights
from mneme.stats.linearised import ASSUMED_ICC, degrees_by_data, degrees_by_size, residuals_of
from mneme.stats.rates import FEWEST_QUESTIONS, Rate, arm_of, change_bounds, joint_of, rate_bounds, touches_zero

FEWEST_CLUSTERS = 8
"""From here on the intervals of numbers without a scale hold (.90 to .97) where clusters are as skewed as exponential ones."""
_RESAMPLES = 999
_MOST_RESAMPLED = 1000
"""Clusters above which the first term of the Edgeworth expansion says what the bootstrap would, at no cost."""

Side = Literal["two-sided", "greater"]


def clustered_ratio(
    numerators: Float[ndarray, " cluster"],
    denominators: Float[ndarray, " cluster"],
    unit: str,
    *,
    level: float = 0.95,
    seed: int = 0,
    identical: bool = False,
    of: str = "passages",
) -> Estimate | TooFew:
    """sum(numerators) / sum(denominators) over independent clusters, any numbers over positive weights of any unit.

    Clusters with a denominator of 0 are left out. TooFew below 8 clusters, or where all say exactly the same, so that nothing
    is known of their spread. `identical` says that the numerators are 0 by construction (two equal models): then, and only
    where they are, the interval is [0, 0]. For shares of answers use `clustered_rate`, which also knows what was not seen.

    Errors: EmptyMask when every denominator is 0.
    """
    used = denominators > 0
    if not used.any():
        raise EmptyMask("A mean over no tokens has no value: expected at least one cluster with a positive weight.")
    above, below = numerators[used].astype(np.float64), denominators[used].astype(np.float64)
    if identical and not above.any():
        return Estimate(value=0.0, low=0.0, high=0.0, unit=unit, n=len(below))
    found = studentised(above, below, correlation=1.0, seed=seed)
    if found.error == 0.0 or found.clusters < FEWEST_CLUSTERS:
        needed = max(FEWEST_CLUSTERS, found.clusters + 1)
        return TooFew(value=found.value, unit=unit, n=found.clusters, needed=needed, of=of)
    return found.estimate(unit, level)


def difference_of_ratios(
    first: tuple[Float[ndarray, " cluster"], Float[ndarray, " cluster"]],
    second: tuple[Float[ndarray, " other"], Float[ndarray, " other"]],
    unit: str,
    *,
    level: float = 0.95,
    seed: int = 0,
    identical: bool = False,
    of: str = "passages",
) -> Estimate | TooFew:
    """Ratio of sums of `first` (numerators, denominators) minus that of `second`, over independent sets of clusters.

    Student's t at the degrees of freedom of the difference (Welch 1947), stretched by what the studentised bootstrap says of
    the difference itself: two sets that are skewed alike have a difference that is not. `n` counts the smaller set; TooFew
    where either is. A set that says 0 in every cluster adds nothing, as long as the other has a spread. Errors: EmptyMask when
    every denominator of either is 0."""
    parts, arms, few = [], [], []
    for above, below in (first, second):
        used = below > 0
        if not used.any():
            raise EmptyMask("A mean over no tokens has no value: expected at least one cluster with a positive weight.")
        arms.append((above[used].astype(np.float64), below[used].astype(np.float64)))
        found = unstretched(*arms[-1], correlation=1.0)
        silent = not above[used].any() and (identical or found.clusters >= FEWEST_CLUSTERS)
        if not silent and (found.error == 0.0 or found.clusters < FEWEST_CLUSTERS):
            few.append((found.clusters, max(FEWEST_CLUSTERS, found.clusters + 1)))
        parts.append(found)
    one, two = parts
    value, n = one.value - two.value, min(one.clusters, two.clusters)
    error = math.hypot(one.error, two.error)
    if error == 0.0 and not identical and not few:
        few.append((n, n + 1))
    if few:
        return TooFew(value=value, unit=unit, n=few[0][0], needed=few[0][1], of=of)
    if error == 0.0:
        return Estimate(value=value, low=value, high=value, unit=unit, n=n)
    degrees = error**4 / (one.error**4 / one.degrees + two.error**4 / two.degrees)
    stretch = _stretch(arms, degrees, seed)
    return Studentised(value, error, degrees, n, stretch).estimate(unit, level)


def clustered_mean(
    sums: Float[ndarray, " cluster"],
    counts: Float[ndarray, " cluster"],
    unit: str = "score",
    *,
    bounds: tuple[float, float] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Rate | TooFew:
    """Mean of clustered values, sum(sums) / sum(counts).

    With `bounds`, the least and the most that a value can be, as a rate of the scale (logit interval, from 5 clusters on;
    where no value differs the interval is that of `clustered_rate` at 0 or 1). Without, as `clustered_ratio`. Clusters without
    a value are left out. Errors: EmptyMask when there is none."""
    used = counts > 0
    if not used.any():
        raise EmptyMask("A mean over no answers has no value: expected at least one question with a score.")
    sums, counts = sums[used].astype(np.float64), counts[used].astype(np.float64)
    if bounds is None:
        found = studentised(sums, counts, correlation=ASSUMED_ICC, seed=seed)
        if found.error == 0.0 or found.clusters < FEWEST_CLUSTERS:
            needed = max(FEWEST_CLUSTERS, found.clusters + 1)
            return TooFew(value=found.value, unit=unit, n=found.clusters, needed=needed, of="questions")
        return Rate(found.estimate(unit, level), found.error, found.degrees, answers=int(counts.sum()))
    low, width = bounds[0], bounds[1] - bounds[0]
    value = float(sums.sum() / counts.sum())
    if len(counts) < FEWEST_QUESTIONS:
        return TooFew(value=value, unit=unit, n=len(counts), needed=FEWEST_QUESTIONS, of="questions")
    arm = arm_of(on_scale(sums, counts, bounds)[None, None], counts[None], binary=False)
    least, most = rate_bounds(arm, special.stdtrit(arm.degrees, 0.5 + level / 2))
    estimate = Estimate(
        value=value, low=low + width * float(least[0]), high=low + width * float(most[0]), unit=unit, n=len(counts)
    )
    error = width * math.sqrt(max(float(arm.variance[0]), arm.floor))
    return Rate(estimate, error, float(arm.degrees[0]), answers=int(counts.sum()))


def paired_mean_change(
    base_sums: Float[ndarray, " cluster"],
    base_counts: Float[ndarray, " cluster"],
    tuned_sums: Float[ndarray, " cluster"],
    tuned_counts: Float[ndarray, " cluster"],
    unit: str = "score",
    *,
    bounds: tuple[float, float],
    level: float = 0.95,
) -> Rate | TooFew:
    """Mean of the tuned model minus that of the base on a scale from `bounds[0]` to `bounds[1]`, paired by cluster.

    TooFew below 5 clusters that have both. Errors: EmptyMask when none has.
    """
    used = (base_counts > 0) & (tuned_counts > 0)
    if not used.any():
        raise EmptyMask("A change over no answers has no value: expected at least one question that both models answered.")
    one = base_sums[used].astype(np.float64), base_counts[used].astype(np.float64)
    two = tuned_sums[used].astype(np.float64), tuned_counts[used].astype(np.float64)
    value = float(two[0].sum() / two[1].sum() - one[0].sum() / one[1].sum())
    clusters = int(used.sum())
    if clusters < FEWEST_QUESTIONS:
        return TooFew(value=value, unit=unit, n=clusters, needed=FEWEST_QUESTIONS, of="questions")
    first, second = (arm_of(on_scale(*part, bounds)[None, None], part[1][None], binary=False) for part in (one, two))
    joint = joint_of(first, second)
    width = bounds[1] - bounds[0]
    low, high = change_bounds(first, second, joint, special.stdtrit(joint.degrees, 0.5 + level / 2))
    estimate = Estimate(value=value, low=width * float(low[0]), high=width * float(high[0]), unit=unit, n=clusters)
    error = width * math.sqrt(float(joint.variance[0]))
    return Rate(
        estimate=estimate,
        standard_error=error,
        degrees=float(joint.degrees[0]),
        p_value=touches_zero(first, second, joint),
        answers=int(joint.answers),
    )


def paired_test(
    differences: Float[ndarray, " cluster"],
    weights: Float[ndarray, " cluster"] | None = None,
    *,
    side: Side = "two-sided",
    seed: int = 0,
    of: str = "passages",
) -> float | TooFew:
    """p of no mean difference over independent clusters: the level at which the interval of `clustered_ratio` touches 0.

    `differences` are sums over each cluster and `weights` what they are sums of (default: one difference a cluster).
    "greater" asks whether the mean is above 0. It holds for skewed differences, where Student's t says .05 up to .25 of the
    time. 1.0 where no difference is other than 0; TooFew below 8 clusters or where all are equal and not 0.
    """
    counts = np.ones(len(differences)) if weights is None else weights
    used = counts > 0
    if not used.any():
        raise EmptyMask("A test of no differences has no p-value: expected at least one cluster that was read under both.")
    sums, counts = differences[used].astype(np.float64), counts[used].astype(np.float64)
    if not sums.any():
        return 1.0
    found = studentised(sums, counts, correlation=1.0, seed=seed)
    if found.error == 0.0 or found.clusters < FEWEST_CLUSTERS:
        needed = max(FEWEST_CLUSTERS, found.clusters + 1)
        return TooFew(value=found.value, unit="difference", n=found.clusters, needed=needed, of=of)
    return found.p_value(side)


class Studentised:
    """A mean with its standard error, degrees of freedom and the stretch of t below and above it."""

    def __init__(self, value: float, error: float, degrees: float, clusters: int, stretch: tuple[float, float]) -> None:
        self.value, self.error, self.degrees, self.clusters, self.stretch = value, error, degrees, clusters, stretch

    def estimate(self, unit: str, level: float) -> Estimate:
        """The interval at `level`."""
        half = float(special.stdtrit(self.degrees, 0.5 + level / 2)) * self.error
        low, high = self.value - half * self.stretch[0], self.value + half * self.stretch[1]
        return Estimate(value=self.value, low=low, high=high, unit=unit, n=self.clusters)

    def p_value(self, side: Side) -> float:
        """The level at which the interval touches 0."""
        t = self.value / self.error
        tail = float(special.stdtr(self.degrees, -abs(t) / self.stretch[0 if t > 0 else 1]))
        if side == "two-sided":
            return min(1.0, 2 * tail)
        return tail if t > 0 else 1 - tail


def studentised(
    sums: Float[ndarray, " cluster"], counts: Float[ndarray, " cluster"], *, correlation: float, seed: int
) -> Studentised:
    """The mean of the clusters; an error of 0 where they are fewer than two or all alike."""
    found = unstretched(sums, counts, correlation=correlation)
    if found.error > 0.0:
        found.stretch = _stretch([(sums, counts)], found.degrees, seed)
    return found


def unstretched(sums: Float[ndarray, " cluster"], counts: Float[ndarray, " cluster"], *, correlation: float) -> Studentised:
    """`studentised` with Student's t as it is."""
    value, residuals = residuals_of(sums, counts)
    size = max(float(np.abs(sums).max()), 1e-300) / float(counts.sum())
    error = math.sqrt(float((residuals**2).sum()))
    if len(counts) < 2 or error <= 1e-12 * size:
        return Studentised(float(value), 0.0, 1.0, len(counts), (1.0, 1.0))
    degrees = min(degrees_by_size(counts, correlation), float(degrees_by_data(residuals)))
    return Studentised(float(value), error, degrees, len(counts), (1.0, 1.0))


def _stretch(arms: list[tuple[ndarray, ndarray]], degrees: float, seed: int) -> tuple[float, float]:
    """How much further than Student's t at 95 % the interval of a mean (or of the first mean less the second) must reach
    (below, above); at least 1. `arms`: sums and counts of either."""
    usual, residuals = float(special.stdtrit(degrees, 0.975)), [residuals_of(*arm)[1] for arm in arms]
    squares = sum(float((one**2).sum()) for one in residuals)
    if min(len(one) for one in residuals) > _MOST_RESAMPLED:
        # Hall 1992, section 3.10: t is off by skewness (2 z^2 + 1) / 6, towards the long tail.
        cubes = sum(sign * float((one**3).sum()) for sign, one in zip((1, -1), residuals, strict=False))
        shift = cubes / squares**1.5 * (2 * usual**2 + 1) / 6
        return max(1.0, 1 - shift / usual), max(1.0, 1 + shift / usual)
    gap, error = np.zeros(_RESAMPLES), np.zeros(_RESAMPLES)
    for at, arm in enumerate(arms):
        if len(arm[0]) > _MOST_RESAMPLED:  # the other is not, and says what is not normal
            own = np.full(_RESAMPLES, math.sqrt(float((residuals[at] ** 2).sum())))
            apart = own * np.random.default_rng(seed + at).normal(size=_RESAMPLES)
        else:
            apart, own = resampled_errors(*arm, seed + at)
        gap, error = gap + (apart if at == 0 else -apart), np.hypot(error, own)
    least = 1e-9 * math.sqrt(squares)
    # A resample of equal clusters has no error: its t is as far out as can be, on the side of its mean.
    t = np.where(error > least, gap / np.maximum(error, least), np.sign(np.where(np.abs(gap) > least, gap, 0.0)) * 1e6)
    low, high = np.quantile(t, [0.025, 0.975])
    return min(max(1.0, float(high) / usual), 1e3), min(max(1.0, -float(low) / usual), 1e3)


def resampled_errors(
    sums: Float[ndarray, " cluster"], counts: Float[ndarray, " cluster"], seed: int
) -> tuple[Float[ndarray, " resample"], Float[ndarray, " resample"]]:
    """(ratio of the resample minus that of the sample, its standard error) in 999 resamples of the clusters."""
    drawn = bootstrap_weights(len(counts), _RESAMPLES, seed)
    value = sums.sum() / counts.sum()
    # Residuals of the sample: what is subtracted below stays small, whatever the value.
    rest = sums - value * counts
    whole = drawn @ counts
    gap = (drawn @ rest) / whole
    squares = drawn @ rest**2 - 2 * gap * (drawn @ (rest * counts)) + gap**2 * (drawn @ counts**2)
    clusters = len(counts)
    return gap, np.sqrt(np.maximum(squares, 0.0) * clusters / (clusters - 1)) / whole


def on_scale(
    sums: Float[ndarray, " cluster"], counts: Float[ndarray, " cluster"], bounds: tuple[float, float]
) -> Float[ndarray, " cluster"]:
    """Sums of scores as sums of shares of the scale."""
    return (sums - bounds[0] * counts) / (bounds[1] - bounds[0])
