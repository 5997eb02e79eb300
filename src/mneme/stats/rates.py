"""Rates of answers to clustered questions, and their paired change: intervals that hold for few questions and rare answers.

A question is a cluster of answers; training seeds are an outer level. Variances and degrees of freedom are those of
`stats/linearised.py`, clustered one way (questions) or two ways (questions and seeds: Cameron, Gelbach & Miller 2011; ours:
lifted to the larger of the two one-way variances where it is below that).
The interval of a rate is a logit interval on the effective number of answers (Korn & Graubard 1998 take the same number into
Clopper-Pearson), with Student's t; that of a change combines the two asymmetric intervals and their correlation (MOVER, Zou &
Donner 2008). Where no answer differs there is no variance to estimate: `ASSUMED_ICC` stands in for it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import special

from mneme.errors import EmptyMask
from mneme.results.record import Estimate, TooFew
from mneme.stats.linearised import assumed_size, degrees_by_data, degrees_by_size

FEWEST_QUESTIONS = 5
"""From here on the intervals of this file hold; with four clusters at most one in 16 splits by chance is decided by sign
alone."""
FEWEST_SEEDS = 3
"""Of training seeds, where there are several: the variance between two has one degree of freedom and says nothing."""
_MOST_T = 1e3
_ALIKE = 1e-15
"""Variances and residuals of shares below it are rounding."""
_STEPS = np.linspace(0.0, 1.0, 65)

Draws = Float[ndarray, "draw seed cluster"]
Table = Float[ndarray, "seed cluster"]


@dataclass(frozen=True)
class Rate:
    """A rate, a mean or a change of either, with what is needed to judge it."""

    estimate: Estimate
    """`n` counts questions that had an answer (in both models, for a change)."""
    standard_error: float
    degrees: float
    p_value: float | None = None
    """Two-sided, of no change: the level at which the interval touches 0. None for a rate."""
    answers: int = 0


@dataclass(frozen=True)
class Arm:
    """One model's rate in many draws at once (one draw for data, many for power): what its bounds are made of."""

    value: Float[ndarray, " draw"]
    variance: Float[ndarray, " draw"]
    degrees: Float[ndarray, " draw"]
    effective: Float[ndarray, " draw"]
    """Answers that independent sampling would need for the same variance."""
    residuals: Draws
    counts: Float[ndarray, "arm cluster"]
    floor: float
    """Variance of one answer at the far end of the scale in all, with the assumed correlation: less is not believed. Without
    it scores close to an end cover .72, because what they lack was not seen."""
    binary: bool = True
    """Answers are hits or not; else shares of a scale."""

    @property
    def answers(self) -> float:
        """How many there are."""
        return float(self.counts.sum())


def clustered_rate(
    hits: Float[ndarray, "*seed cluster"], counts: Float[ndarray, "*seed cluster"], unit: str = "rate", *, level: float = 0.95
) -> Rate | TooFew:
    """Pooled share of hits, sum(hits) / sum(counts), of answers in clusters; axis 0 is the training seed where there is one.

    Hits may be fractions of answers (0 to counts). Clusters without an answer are left out; TooFew below 5 with one (or below
    3 seeds, where there are several). Errors: EmptyMask when there is no answer at all."""
    hits, counts = np.atleast_2d(hits), np.atleast_2d(counts)
    used = counts.sum(0) > 0
    if not used.any():
        raise EmptyMask("A rate over no answers has no value: expected at least one question with an answer that counts.")
    hits, counts = hits[:, used], counts[:, used]
    few = _too_few(float(hits.sum() / counts.sum()), counts, unit)
    if few:
        return few
    arm = arm_of(hits[None], counts)
    low, high = rate_bounds(arm, special.stdtrit(arm.degrees, 0.5 + level / 2))
    middle = (arm.value * arm.effective + 0.5) / (arm.effective + 1)
    error = np.sqrt(middle * (1 - middle) / (arm.effective + 1))
    estimate = Estimate(value=float(arm.value[0]), low=float(low[0]), high=float(high[0]), unit=unit, n=counts.shape[1])
    return Rate(estimate, float(error[0]), float(arm.degrees[0]), answers=int(arm.answers))


def paired_change(
    base_hits: Float[ndarray, " cluster"],
    base_counts: Float[ndarray, " cluster"],
    tuned_hits: Float[ndarray, "*seed cluster"],
    tuned_counts: Float[ndarray, "*seed cluster"],
    unit: str = "rate",
    *,
    level: float = 0.95,
) -> Rate | TooFew:
    """Rate of the tuned model (or of its training seeds) minus that of the base, paired by cluster.

    Clusters in which either has no answer are left out; TooFew below 5 that are left (or below 3 seeds, where there are
    several). Errors: EmptyMask when none is left.
    """
    tuned_hits, tuned_counts = np.atleast_2d(tuned_hits), np.atleast_2d(tuned_counts)
    used = (base_counts > 0) & (tuned_counts.sum(0) > 0)
    if not used.any():
        raise EmptyMask("A change over no answers has no value: expected at least one question that both models answered.")
    hits, counts = tuned_hits[:, used], tuned_counts[:, used]
    value = float(hits.sum() / counts.sum() - base_hits[used].sum() / base_counts[used].sum())
    few = _too_few(value, counts, unit)
    if few:
        return few
    first, second = arm_of(base_hits[None, None, used], base_counts[None, used]), arm_of(hits[None], counts)
    joint = joint_of(first, second)
    low, high = change_bounds(first, second, joint, special.stdtrit(joint.degrees, 0.5 + level / 2))
    estimate = Estimate(value=value, low=float(low[0]), high=float(high[0]), unit=unit, n=counts.shape[1])
    p_value = touches_zero(first, second, joint)
    return Rate(
        estimate=estimate,
        standard_error=float(np.sqrt(joint.variance[0])),
        degrees=float(joint.degrees[0]),
        p_value=p_value,
        answers=int(joint.answers),
    )


def equivalent(
    base_hits: Float[ndarray, " cluster"],
    base_counts: Float[ndarray, " cluster"],
    tuned_hits: Float[ndarray, "*seed cluster"],
    tuned_counts: Float[ndarray, "*seed cluster"],
    margin: float,
) -> bool:
    """Two one-sided tests at 5 % (Schuirmann 1987): True where the change lies within +- `margin`, shown by the 90 % interval.

    False says that this was not shown (too few questions show nothing), not that there is a difference.
    """
    found = paired_change(base_hits, base_counts, tuned_hits, tuned_counts, level=0.90)
    return isinstance(found, Rate) and -margin < found.estimate.low and found.estimate.high < margin


def _too_few(value: float, counts: Table, unit: str) -> TooFew | None:
    seeds, clusters = counts.shape
    if clusters < FEWEST_QUESTIONS:
        return TooFew(value=value, unit=unit, n=clusters, needed=FEWEST_QUESTIONS, of="questions")
    if 1 < seeds < FEWEST_SEEDS:
        return TooFew(value=value, unit=unit, n=seeds, needed=FEWEST_SEEDS, of="training seeds")
    return None


def arm_of(hits: Draws, counts: Table, *, binary: bool = True) -> Arm:
    """The arm of a model whose answers are counted alike in every draw.

    Answers that are hits or not (`binary`) are never worth more than as many independent ones; shares of a scale may vary
    less."""
    total = float(counts.sum())
    value = hits.sum((1, 2)) / total
    residuals = (hits - value[:, None, None] * counts) / total
    variance, degrees = _variance(residuals, counts, residuals, hits=binary)
    assumed = assumed_size(counts.reshape(-1))
    spread = value * (1 - value)
    known = (variance > _ALIKE) & (spread > 0)
    floor = total / assumed / (total + 2) ** 2
    worth = spread / np.where(known, np.maximum(variance, 0.0 if binary else floor), 1.0)
    effective = np.where(known, np.minimum(worth, total) if binary else worth, assumed)
    return Arm(
        value=value,
        variance=variance,
        degrees=degrees,
        effective=effective,
        residuals=residuals,
        counts=counts,
        floor=floor,
        binary=binary,
    )


def joint_of(first: Arm, second: Arm) -> Arm:
    """The paired difference of two arms over the same clusters; its value is 0 (it is not used)."""
    seeds = len(second.counts)
    residuals = second.residuals - first.residuals / seeds
    corrected = second.residuals / _leverage(second.counts) - first.residuals / seeds / _leverage(first.counts)
    variance, degrees = _variance(residuals, second.counts, corrected, other=first.counts, hits=first.binary)
    floor = max(first.floor, second.floor)
    answers = min(first.answers, second.answers)
    worth = np.minimum(first.effective / first.answers, second.effective / second.answers)
    fewer = first.counts if first.answers <= second.answers else second.counts
    believed = np.maximum(variance, floor)
    return Arm(
        value=np.zeros(len(residuals)),
        variance=believed,
        degrees=degrees,
        effective=answers * worth,
        residuals=residuals,
        counts=fewer,
        floor=floor,
        binary=first.binary,
    )


def _leverage(counts: Table) -> Float[ndarray, " cluster"]:
    return np.asarray(np.sqrt(1 - np.minimum(counts.sum(0) / counts.sum(), 1 - 1e-9)))


def _variance(
    residuals: Draws, counts: Table, corrected: Draws, other: Float[ndarray, "arm cluster"] | None = None, *, hits: bool
) -> tuple[Float[ndarray, " draw"], Float[ndarray, " draw"]]:
    """(variance of their sum, degrees of freedom), clustered by question and, with several seeds, by seed as well.

    `corrected` are the residuals with the leverage taken off, where that is not the one of `counts` alone (a paired change).
    """
    seeds, clusters = counts.shape
    by_question = (residuals / _leverage(counts) if other is None else corrected).sum(1)
    variance = (by_question**2).sum(-1)
    sizes = [degrees_by_size(table.sum(0), hits=hits) for table in (counts, other) if table is not None]
    degrees = np.minimum(degrees_by_data(by_question), min(sizes))
    if seeds == 1:
        return variance, degrees
    by_seed = seeds / (seeds - 1) * (residuals.sum(2) ** 2).sum(-1)
    cells = seeds * clusters
    both = cells / (cells - 1) * (residuals**2).sum((1, 2))
    whole = np.maximum(np.maximum(variance + by_seed - both, variance), by_seed)
    # Cochran & Cox 1950: the two quantiles of t, weighted by the variances. Satterthwaite's number is read off the two
    # estimates, of which that between three seeds is often far too small, and covers .87.
    parts = variance + by_seed
    weight = np.where(parts > 0, by_seed / np.where(parts > 0, parts, 1.0), 1.0)
    t = (1 - weight) * special.stdtrit(degrees, 0.975) + weight * special.stdtrit(seeds - 1, 0.975)
    return whole, np.clip(special.stdtridf(0.975, t), 1.0, clusters - 1.0)


def rate_bounds(arm: Arm, t: Float[ndarray, "..."]) -> tuple[Float[ndarray, "..."], Float[ndarray, "..."]]:
    """Logit interval with half of an answer added to either side; at 0 and 1 the exact binomial bound. `t` by draw."""
    value, n = arm.value, arm.effective
    middle = (value * n + 0.5) / (n + 1)
    logit = np.log(middle / (1 - middle))
    half = np.minimum(t / np.sqrt((n + 1) * middle * (1 - middle)), 500.0)
    low, high = np.minimum(special.expit(logit - half), value), np.maximum(special.expit(logit + half), value)
    far = none_of(n, t, arm.degrees)
    low = np.where(value == 0, 0.0, np.where(value == 1, 1 - far, low))
    return low, np.where(value == 0, far, np.where(value == 1, 1.0, high))


def change_bounds(
    first: Arm, second: Arm, joint: Arm, t: Float[ndarray, "..."]
) -> tuple[Float[ndarray, "..."], Float[ndarray, "..."]]:
    """MOVER with the correlation that makes the variances add up; never narrower than one answer in all. `t` by draw."""
    change = second.value - first.value
    (low0, high0), (low1, high1) = rate_bounds(first, t), rate_bounds(second, t)
    product = np.sqrt(first.variance * second.variance)
    gap = first.variance + second.variance - joint.variance
    correlation = np.clip(np.where(product > 0, gap / np.where(product > 0, 2 * product, 1.0), 0.0), -1.0, 1.0)
    below, above = second.value - low1, high1 - second.value
    base_below, base_above = first.value - low0, high0 - first.value
    flat = np.abs(joint.residuals).max((1, 2)) <= _ALIKE
    least = joint.floor * t * t
    down = np.maximum(below**2 + base_above**2 - 2 * correlation * below * base_above, least)
    up = np.maximum(above**2 + base_below**2 - 2 * correlation * above * base_below, least)
    # Where no question differs, the change is at most the share of answers that differ, of which none was seen.
    alike = flat & (np.abs(change) <= _ALIKE)
    most = none_of(joint.effective, t, joint.degrees)
    return np.where(alike, -most, change - np.sqrt(down)), np.where(alike, most, change + np.sqrt(up))


def none_of(answers: Float[ndarray, "..."], t: Float[ndarray, "..."], degrees: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """The rate of which `answers` independent answers would show none with the probability that Student's t exceeds `t`."""
    tail = np.maximum(special.stdtr(degrees, -np.minimum(t, _MOST_T)), 1e-300)
    return np.asarray(-np.expm1(np.log(tail) / answers))


def touches_zero(first: Arm, second: Arm, joint: Arm) -> float:
    """p: the level at which the interval of the one draw touches 0; t by two rounds of trial values and a line between two."""
    change = float(second.value[0] - first.value[0])
    if change == 0:
        return 1.0
    near, far, share = 1e-3, _MOST_T, 0.0
    for _ in range(2):
        trials = near * (far / near) ** _STEPS
        low, high = change_bounds(first, second, joint, trials)
        gap = low if change > 0 else -high
        beyond = np.flatnonzero(gap <= 0)
        at = max(int(beyond[0]), 1) if len(beyond) else len(trials) - 1
        near, far = float(trials[at - 1]), float(trials[at])
        share = float(np.clip(gap[at - 1] / max(gap[at - 1] - gap[at], 1e-300), 0.0, 1.0))
    return float(min(1.0, 2 * special.stdtr(joint.degrees[0], -(near + share * (far - near)))))
