"""Rates of answers to clustered questions, and their paired change: intervals that hold for few questions and rare answers.

A question is a cluster of answers; training seeds are an outer level. Variances are those of the linearised ratio, clustered
one way (questions) or two ways (questions and seeds: Cameron, Gelbach & Miller 2011, with Satterthwaite's degrees of freedom).
The interval of a rate is a logit interval on the effective number of answers (Korn & Graubard 1998 take the same number into
Clopper-Pearson), with Student's t; that of a change combines the two asymmetric intervals and their correlation (MOVER, Zou &
Donner 2008). Where no answer differs there is no variance to estimate: `ASSUMED_ICC` stands in for it.
Chosen by simulation (benchmarks/coverage.py): the symmetric interval covers rare rates in 57-90 % of runs.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mneme.errors import EmptyMask
from mneme.results import Estimate
from mneme.stats.distributions import student_t_cdf, student_t_quantile

ASSUMED_ICC = 0.1
"""Intra-class correlation of answers to one question where it cannot be estimated (no answer differs): the median over 25
published fine-tuned models is 0.107."""
POWER = 0.8
_MOST_T = 1e3

Table = Float[ndarray, "seed cluster"]


@dataclass(frozen=True)
class Rate:
    """A rate or a change of rate with what is needed to judge it."""

    estimate: Estimate
    """`n` counts questions that had an answer (in both models, for a change)."""
    standard_error: float
    degrees: float
    minimal_detectable: float
    """The true change that a two-sided test at 5 % would find with a power of 80 %, in the unit of the estimate: for a rate,
    against a second model measured on as many answers, unpaired; for a change, as it was measured here."""
    p_value: float | None = None
    """Two-sided, of no change: the level at which the interval touches 0. None for a rate."""
    answers: int = 0


@dataclass(frozen=True)
class _Arm:
    value: float
    variance: float
    degrees: float
    effective: float
    """Answers that independent sampling would need for the same variance."""
    residuals: Table
    answers: float
    floor: float
    """Variance of one answer in all, with the assumed correlation: less is not believed."""

    def bounds(self, t: float) -> tuple[float, float]:
        """Logit interval with half of an answer added to either side; at 0 and 1 the exact binomial bound."""
        n = self.effective
        if self.value in (0.0, 1.0):
            far = _none_of(n, t, self.degrees)
            return (0.0, far) if self.value == 0 else (1.0 - far, 1.0)
        middle = (self.value * n + 0.5) / (n + 1)
        logit = math.log(middle / (1 - middle))
        half = min(t / math.sqrt((n + 1) * middle * (1 - middle)), 500.0)
        low, high = 1 / (1 + math.exp(-(logit - half))), 1 / (1 + math.exp(-(logit + half)))
        return min(low, self.value), max(high, self.value)

    def error(self) -> float:
        """Standard error with half of an answer added to either side, so that it is never 0."""
        middle = (self.value * self.effective + 0.5) / (self.effective + 1)
        return math.sqrt(middle * (1 - middle) / (self.effective + 1))


def clustered_rate(
    hits: Float[ndarray, "*seed cluster"], counts: Float[ndarray, "*seed cluster"], unit: str = "rate", *, level: float = 0.95
) -> Rate:
    """Pooled share of hits, sum(hits) / sum(counts), of answers in clusters; axis 0 is the training seed where there is one.

    Clusters without an answer are left out. One cluster alone has no spread between clusters: 1 degree of freedom and the
    assumed correlation. Errors: EmptyMask when there is no answer at all.
    """
    hits, counts = np.atleast_2d(hits), np.atleast_2d(counts)
    used = counts.sum(0) > 0
    if not used.any():
        raise EmptyMask("A rate over no answers has no value: expected at least one question with an answer that counts.")
    arm = _arm(hits[:, used], counts[:, used])
    low, high = arm.bounds(student_t_quantile(0.5 + level / 2, arm.degrees))
    error = arm.error()
    estimate = Estimate(value=arm.value, low=low, high=high, unit=unit, n=int(used.sum()))
    return Rate(estimate, error, arm.degrees, _detectable(math.sqrt(2) * error, arm.degrees), answers=int(arm.answers))


def paired_change(
    base_hits: Float[ndarray, " cluster"],
    base_counts: Float[ndarray, " cluster"],
    tuned_hits: Float[ndarray, "*seed cluster"],
    tuned_counts: Float[ndarray, "*seed cluster"],
    unit: str = "rate",
    *,
    level: float = 0.95,
) -> Rate:
    """Rate of the tuned model (or of its training seeds) minus that of the base, paired by cluster.

    Clusters in which either has no answer are left out. Errors: EmptyMask when none is left.
    """
    first, second, joint = _arms(base_hits, base_counts, tuned_hits, tuned_counts)
    low, high = _change_bounds(first, second, joint, student_t_quantile(0.5 + level / 2, joint.degrees))
    error = math.sqrt(joint.variance)
    estimate = Estimate(value=second.value - first.value, low=low, high=high, unit=unit, n=joint.residuals.shape[1])
    return Rate(
        estimate,
        error,
        joint.degrees,
        _detectable(error, joint.degrees),
        p_value=_touches_zero(first, second, joint),
        answers=int(min(first.answers, second.answers)),
    )


def equivalent(
    base_hits: Float[ndarray, " cluster"],
    base_counts: Float[ndarray, " cluster"],
    tuned_hits: Float[ndarray, "*seed cluster"],
    tuned_counts: Float[ndarray, "*seed cluster"],
    margin: float,
) -> bool:
    """Two one-sided tests at 5 % (Schuirmann 1987): True where the change lies within +- `margin`, shown by the 90 % interval.

    False says that this was not shown, not that there is a difference.
    """
    inner = paired_change(base_hits, base_counts, tuned_hits, tuned_counts, level=0.90).estimate
    return -margin < inner.low and inner.high < margin


def _arms(
    base_hits: Float[ndarray, " cluster"],
    base_counts: Float[ndarray, " cluster"],
    tuned_hits: Float[ndarray, "*seed cluster"],
    tuned_counts: Float[ndarray, "*seed cluster"],
) -> tuple[_Arm, _Arm, _Arm]:
    hits, counts = np.atleast_2d(tuned_hits), np.atleast_2d(tuned_counts)
    used = (base_counts > 0) & (counts.sum(0) > 0)
    if not used.any():
        raise EmptyMask("A change over no answers has no value: expected at least one question that both models answered.")
    first, second = _arm(base_hits[None, used], base_counts[None, used]), _arm(hits[:, used], counts[:, used])
    residuals = second.residuals - first.residuals / len(second.residuals)
    variance, degrees = _variance(residuals)
    floor = max(first.floor, second.floor)
    answers = min(first.answers, second.answers)
    effective = answers * min(first.effective / first.answers, second.effective / second.answers)
    joint = _Arm(0.0, max(variance, floor), degrees, effective, residuals, answers, floor)
    return first, second, joint


def _arm(hits: Table, counts: Table) -> _Arm:
    total = float(counts.sum())
    value = float(hits.sum()) / total
    residuals = (hits - value * counts) / total
    variance, degrees = _variance(residuals)
    clusters = counts.shape[1]
    design = 1 + max(total / counts.size - 1, 0.0) * ASSUMED_ICC
    assumed = total / (design if clusters > 1 else max(design, total * ASSUMED_ICC))
    spread = value * (1 - value)
    effective = min(spread / variance, total) if variance > 0 and spread > 0 and clusters > 1 else assumed
    return _Arm(value, variance, degrees, effective, residuals, total, design / (total + 2) ** 2)


def _variance(residuals: Table) -> tuple[float, float]:
    """(variance of their sum, degrees of freedom), clustered by question and, with two seeds or more, by seed as well."""
    seeds, clusters = residuals.shape
    if clusters < 2:
        return 0.0, 1.0
    by_cluster = clusters / (clusters - 1) * float((residuals.sum(0) ** 2).sum())
    if seeds < 2:
        return by_cluster, clusters - 1.0
    by_seed = seeds / (seeds - 1) * float((residuals.sum(1) ** 2).sum())
    cells = seeds * clusters
    both = cells / (cells - 1) * float((residuals**2).sum())
    variance = max(by_cluster + by_seed - both, by_cluster, by_seed)
    if variance == 0:
        return 0.0, min(seeds, clusters) - 1.0
    share = by_seed**2 / (seeds - 1) + by_cluster**2 / (clusters - 1)
    return variance, max(1.0, min((by_cluster + by_seed) ** 2 / share, clusters - 1.0))


def _change_bounds(first: _Arm, second: _Arm, joint: _Arm, t: float) -> tuple[float, float]:
    """MOVER with the correlation that makes the variances add up; never narrower than one answer in all."""
    change = second.value - first.value
    if not joint.residuals.any() and change == 0:
        # No question differs: the change is at most the share of answers that differ, of which none was seen.
        most = _none_of(joint.effective, t, joint.degrees)
        return -most, most
    (low0, high0), (low1, high1) = first.bounds(t), second.bounds(t)
    product = math.sqrt(first.variance * second.variance)
    correlation = (first.variance + second.variance - joint.variance) / (2 * product) if product > 0 else 0.0
    correlation = min(max(correlation, -1.0), 1.0)
    below, above = second.value - low1, high1 - second.value
    base_below, base_above = first.value - low0, high0 - first.value
    least = joint.floor * t * t
    down = max(below**2 + base_above**2 - 2 * correlation * below * base_above, least)
    up = max(above**2 + base_below**2 - 2 * correlation * above * base_below, least)
    return change - math.sqrt(down), change + math.sqrt(up)


def _touches_zero(first: _Arm, second: _Arm, joint: _Arm) -> float:
    if second.value == first.value:
        return 1.0
    rising = second.value > first.value
    near, far = 0.0, _MOST_T
    for _ in range(60):
        t = (near + far) / 2
        low, high = _change_bounds(first, second, joint, t)
        excluded = low > 0 if rising else high < 0
        near, far = (t, far) if excluded else (near, t)
    return min(1.0, 2 * (1 - student_t_cdf((near + far) / 2, joint.degrees)))


def _none_of(answers: float, t: float, degrees: float) -> float:
    """The rate of which `answers` independent answers would show none with the probability that Student's t exceeds `t`."""
    tail = max(1 - student_t_cdf(min(t, _MOST_T), degrees), 1e-300)
    return float(-math.expm1(math.log(tail) / answers))


def _detectable(error: float, degrees: float) -> float:
    return (student_t_quantile(0.975, degrees) + student_t_quantile(POWER, degrees)) * error


def clustered_mean(
    sums: Float[ndarray, " cluster"], counts: Float[ndarray, " cluster"], unit: str = "score", *, level: float = 0.95
) -> Rate:
    """Mean of clustered values, sum(sums) / sum(counts): Student's t on the linearised ratio, whatever the number of clusters.

    Clusters without a value are left out. Errors: EmptyMask when there is none.
    """
    used = counts > 0
    if not used.any():
        raise EmptyMask("A mean over no answers has no value: expected at least one question with a score.")
    value, residuals = _linear(sums[used], counts[used])
    return _mean(value, residuals, float(counts.sum()), unit, level, math.sqrt(2))


def paired_mean_change(
    base_sums: Float[ndarray, " cluster"],
    base_counts: Float[ndarray, " cluster"],
    tuned_sums: Float[ndarray, " cluster"],
    tuned_counts: Float[ndarray, " cluster"],
    unit: str = "score",
    *,
    level: float = 0.95,
) -> Rate:
    """Mean of the tuned model minus that of the base, paired by cluster. Errors: EmptyMask when no cluster has both."""
    used = (base_counts > 0) & (tuned_counts > 0)
    if not used.any():
        raise EmptyMask("A change over no answers has no value: expected at least one question that both models answered.")
    first, left = _linear(base_sums[used], base_counts[used])
    second, right = _linear(tuned_sums[used], tuned_counts[used])
    answers = min(float(base_counts[used].sum()), float(tuned_counts[used].sum()))
    found = _mean(second - first, right - left, answers, unit, level, 1.0)
    t = abs(found.estimate.value) / found.standard_error if found.standard_error else 0.0
    return replace(found, p_value=2 * (1 - student_t_cdf(min(t, _MOST_T), found.degrees)))


def _linear(sums: Float[ndarray, " cluster"], counts: Float[ndarray, " cluster"]) -> tuple[float, Table]:
    total = float(counts.sum())
    value = float(sums.sum()) / total
    return value, ((sums - value * counts) / total)[None]


def _mean(value: float, residuals: Table, answers: float, unit: str, level: float, arms: float) -> Rate:
    """One cluster has no spread: its interval is value +- (1 + |value|), as in `ratio_of_sums`."""
    variance, degrees = _variance(residuals)
    clusters = residuals.shape[1]
    error = math.sqrt(variance)
    half = 1.0 + abs(value) if clusters == 1 else student_t_quantile(0.5 + level / 2, degrees) * error
    estimate = Estimate(value=value, low=value - half, high=value + half, unit=unit, n=clusters)
    detectable = half * 2 if clusters == 1 else _detectable(arms * error, degrees)
    return Rate(estimate, error, degrees, detectable, answers=int(answers))
