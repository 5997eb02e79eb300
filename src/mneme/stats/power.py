"""The smallest effect that would have been found with a power of 80 %, by simulation from the sample at hand.

A formula for normal data says 704 points where nothing above 100 can be, and .80 where the power is .42. Here answers are
drawn again under every trial effect, from the sizes, the clustering and the base rate of the sample, and judged by the very
interval that judged the sample; the effect is clipped to what is possible. None = not even the largest possible effect would
have been found. Trial effects share their random numbers, so that power rises with the effect. Ours; no package has it for
these intervals."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from operator import le
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import special

from mneme.stats.linearised import ASSUMED_ICC
from mneme.stats.means import FEWEST_CLUSTERS, on_scale, resampled_errors, studentised
from mneme.stats.rates import FEWEST_QUESTIONS, FEWEST_SEEDS, Arm, arm_of, change_bounds, joint_of

POWER = 0.8
_DRAWS = 400
"""The power at the effect that is found has a standard error of 2 points."""
_MOST_DRAWN = 40_000
"""Clusters over all draws: above 100 clusters there are fewer draws, down to 150."""
_NODES = np.linspace(-4.5, 4.5, 61)
"""Places of the normal at which a table of rates is made."""
_ALMOST = 1e-4
"""Rates and correlations nearer to 0 or 1 are taken for it."""
_GUESSES = 20
"""Sets of what the sample leaves open, each with a twentieth of the draws."""
_USUAL_DEGREES = 4.0
"""Degrees of freedom that the usual correlation within questions counts for: as little as keeps a sample of few questions from
claiming that there is none, and less than what 10 even questions say. 8 was tried: as often right, and too careful of answers
without any correlation (docs/log.md)."""
_CLOSEST = 0.02
"""Trial effects are halved until the next is within 2 % of the last."""
_NOTHING = 1e-9
"""An effect that is none: the search looks no further down. Never varied."""

Draws = Float[ndarray, "draw seed cluster"]
Table = Float[ndarray, "seed cluster"]


class _Sample(NamedTuple):
    """What is drawn again, as `_GUESSES` times as the sample leaves it open: base rate, correlation within questions and
    between models; and the spread of training seeds (logits)."""

    rate: Float[ndarray, " guess"]
    within: Float[ndarray, " guess"]
    between: Float[ndarray, " guess"]
    seeds: float


def detectable_change(
    base_hits: Float[ndarray, " cluster"],
    base_counts: Float[ndarray, " cluster"],
    tuned_hits: Float[ndarray, "*seed cluster"],
    tuned_counts: Float[ndarray, "*seed cluster"],
    *,
    paired: bool = True,
    level: float = 0.95,
    seed: int = 0,
) -> float | None:
    """Smallest true change of a rate that `paired_change` at `level` would have shown, as it was measured here.

    The change points away from the nearer end of the scale, where it is harder to see. Not `paired`: against a second model
    that is independent of the first. None where no change up to the far end would do, or where `paired_change` says TooFew.
    """
    tuned_hits, tuned_counts = np.atleast_2d(tuned_hits), np.atleast_2d(tuned_counts)
    used = (base_counts > 0) & (tuned_counts.sum(0) > 0)
    if used.sum() < FEWEST_QUESTIONS or 1 < len(tuned_counts) < FEWEST_SEEDS:
        return None
    base, tuned = base_counts[None, used], tuned_counts[:, used]
    first, second = arm_of(base_hits[None, None, used], base), arm_of(tuned_hits[None][:, :, used], tuned)
    sample = _sample(first, second, paired, np.random.default_rng([seed, 1]))
    draws = int(np.clip(_MOST_DRAWN // tuned.size, 160, _DRAWS)) // _GUESSES
    rate = float(first.value[0])
    sign = 1.0 if rate <= 0.5 else -1.0

    def power(effect: float) -> float:
        arms = _drawn(sample, sign * effect, base, tuned, draws, np.random.default_rng(seed))
        return _shown(*arms, sign, level)

    guess = 2.8 * math.sqrt(float(first.variance[0] + second.variance[0]) + first.floor)
    return smallest(power, guess, max(rate, 1 - rate))


def detectable_mean_change(
    base_sums: Float[ndarray, " cluster"],
    base_counts: Float[ndarray, " cluster"],
    tuned_sums: Float[ndarray, " cluster"],
    tuned_counts: Float[ndarray, " cluster"],
    *,
    bounds: tuple[float, float],
    paired: bool = True,
    level: float = 0.95,
    seed: int = 0,
) -> float | None:
    """`detectable_change` for mean scores on a scale (`paired_mean_change`), in the unit of the score.

    The residuals of the questions are drawn again with normal weights, the same for both models where they are `paired` (wild
    cluster bootstrap, Cameron, Gelbach & Miller 2008).
    """
    used = (base_counts > 0) & (tuned_counts > 0)
    if used.sum() < FEWEST_QUESTIONS:
        return None
    counts = base_counts[None, used].astype(np.float64), tuned_counts[None, used].astype(np.float64)
    sums = on_scale(base_sums[used], counts[0][0], bounds), on_scale(tuned_sums[used], counts[1][0], bounds)
    arms = [arm_of(part[None, None], number, binary=False) for part, number in zip(sums, counts, strict=True)]
    start = float(arms[0].value[0])
    draws, sign = int(np.clip(_MOST_DRAWN // counts[0].size, 150, _DRAWS)), 1.0 if start <= 0.5 else -1.0

    def power(effect: float) -> float:
        generator = np.random.default_rng(seed)
        weights = generator.normal(size=(draws, 1, counts[0].size))
        others = weights if paired else generator.normal(size=weights.shape)
        drawn = []
        for arm, number, weight, rate in zip(arms, counts, (weights, others), (start, start + sign * effect), strict=True):
            spread = arm.residuals * arm.answers / np.sqrt(1 - number / number.sum() + 1e-9)
            drawn.append(arm_of(np.clip(number * rate + spread * weight, 0.0, number), number, binary=False))
        return _shown(drawn[0], drawn[1], sign, level)

    guess = 2.8 * math.sqrt(float(arms[0].variance[0] + arms[1].variance[0]) + arms[0].floor)
    found = smallest(power, guess, max(start, 1 - start))
    return None if found is None else found * (bounds[1] - bounds[0])


def detectable_shift(
    numerators: Float[ndarray, " cluster"],
    denominators: Float[ndarray, " cluster"],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> float | None:
    """Smallest true ratio, in size, that `clustered_ratio` would have told from 0 in 80 % of resamples of these clusters; the
    larger of the two directions. None where `clustered_ratio` says TooFew."""
    used = denominators > 0
    sums, counts = numerators[used].astype(np.float64), denominators[used].astype(np.float64)
    if len(counts) < FEWEST_CLUSTERS:
        return None
    found = studentised(sums, counts, correlation=1.0, seed=seed)
    if found.error == 0.0:
        return None
    half = float(special.stdtrit(found.degrees, 0.5 + level / 2))
    gap, error = resampled_errors(sums, counts, seed + 1)
    up = np.quantile(half * found.stretch[0] * error - gap, POWER)
    down = np.quantile(half * found.stretch[1] * error + gap, POWER)
    return float(max(up, down))


_STATED: ContextVar[list[float] | None] = ContextVar("stated", default=None)


@contextmanager
def stated(found: Iterable[float]) -> Iterator[None]:
    """Within it every call of `smallest` first asks whether its search would have ended at the next of these figures, which
    takes two looks at the power where the search takes ten. As power rises with the effect no result is another; where the
    next figure is not the right one, the effect is searched for."""
    token = _STATED.set(list(found))
    try:
        yield
    finally:
        _STATED.reset(token)


def smallest(power: Callable[[float], float], guess: float, most: float) -> float | None:
    """The effect at which `power` is 80 %, by halving on a ratio scale around `guess`; None where it is less at `most`."""
    known = _STATED.get() or []
    if known:
        low, high = _searched(partial(le, known[0]), guess, most)
        if high == known[0] and power(high) >= POWER and (low <= _NOTHING or power(low) < POWER):
            return known.pop(0)
    found = _searched(lambda size: power(size) >= POWER, guess, most)[1]
    if found in known:
        del known[: known.index(found) + 1]
    return found


def _searched(enough: Callable[[float], bool], guess: float, most: float) -> tuple[float, float | None]:
    """The largest size that was seen not to be enough, and the smallest that was, close together; None: not even `most`."""
    high = min(guess, most)
    while not enough(high):
        if high >= most:
            return most, None
        high = min(2 * high, most)
    low = high / 2
    while low > _NOTHING and enough(low):
        low, high = low / 2, low
    while high / low > 1 + _CLOSEST:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return low, high


def _shown(first: Arm, second: Arm, sign: float, level: float) -> float:
    """Share of draws in which the interval of the change leaves out 0 on the right side."""
    joint = joint_of(first, second)
    low, high = change_bounds(first, second, joint, special.stdtrit(joint.degrees, 0.5 + level / 2))
    return float(((low > 0) if sign > 0 else (high < 0)).mean())


def _sample(first: Arm, second: Arm, paired: bool, generator: np.random.Generator) -> _Sample:
    """What the two arms say of rates and correlations, drawn from the uncertainty of each: the power at one best guess is too
    good to be true where 10 questions say how alike two models are. The assumed correlation where there is nothing to see."""
    worth, clusters = float(first.effective[0]), first.counts.shape[1]
    hits = float(first.value[0]) * worth
    rate = generator.beta(hits + 1, worth - hits + 1, _GUESSES)  # uniform before: Jeffreys' half puts rare rates too low
    one, two = first.residuals[0].sum(0), second.residuals[0].sum(0)
    own = math.sqrt(float((one**2).sum() * (two**2).sum()))
    seen = float(np.clip((one * two).sum() / own, -0.99, 0.99)) if own > 0 else 0.0
    # Fisher's z of a correlation of pairs, as many as carry it: one large question says little of the others.
    pairs = min(float(first.degrees[0]), float(second.degrees[0]), clusters - 1.0) + 1
    alike = np.clip(np.tanh(math.atanh(seen) + generator.normal(size=_GUESSES) / math.sqrt(max(pairs - 3, 1.0))), 0.0, 0.99)
    several = [_excess(arm) for arm in (first, second)]
    if min(several) < 0.05:
        # One answer a question: what the two models share is all that can be seen of the question.
        within, between = (alike if paired else np.zeros(_GUESSES)), np.full(_GUESSES, 0.999)
    else:
        # Drawn from a scaled inverse chi-squared that begins at the usual correlation: few questions, rare answers or one
        # large question tell a variance by few degrees of freedom, and mostly tell one that is too small.
        usual = 1 + ASSUMED_ICC * float(np.mean(several))
        known = [arm for arm in (first, second) if 0 < arm.value[0] < 1]
        degrees = sum(float(arm.degrees[0]) for arm in known)
        found = sum(float(arm.answers / arm.effective[0]) * float(arm.degrees[0]) for arm in known)
        whole = degrees + _USUAL_DEGREES
        design = (found + usual * _USUAL_DEGREES) / generator.chisquare(whole, _GUESSES)
        within = np.clip((design - 1) / np.mean(several), 0.0, 0.9)
        share = within * (np.mean(several) + 1) / (1 + within * np.mean(several))
        between = np.where(share > 0.001, np.clip(alike / np.maximum(share, 0.001), 0.0, 0.99), 0.0)
    return _Sample(rate, within, between if paired else np.zeros(_GUESSES), _spread_of_seeds(second))


def _spread_of_seeds(arm: Arm) -> float:
    if len(arm.counts) < 2:
        return 0.0
    spread = float((arm.residuals[0].sum(1) ** 2).sum() * len(arm.counts))
    noise = float((arm.residuals[0] ** 2).sum() * len(arm.counts))
    middle = float((arm.value[0] * arm.effective[0] + 0.5) / (arm.effective[0] + 1))
    return min(math.sqrt(max(spread - noise, 0.0)) / (middle * (1 - middle)), 3.0)


def _excess(arm: Arm) -> float:
    counts = arm.counts.reshape(-1)
    return float((counts**2).sum() / counts.sum()) - 1


def _drawn(
    sample: _Sample, effect: float, base: Table, tuned: Table, draws: int, generator: np.random.Generator
) -> tuple[Arm, Arm]:
    """Both models in `draws` draws of every guess: the rates of the questions are beta and correlated between models (a normal
    copula). Logit-normal rates, which have no such mass at 0, told 10 to 20 questions at a rate of .02 too small a change."""
    clusters, seeds = base.shape[1], len(tuned)
    shared = generator.normal(size=(draws * _GUESSES, 1, clusters))
    own = generator.normal(size=(draws * _GUESSES, seeds, clusters))
    shift = sample.seeds * generator.normal(size=(draws * _GUESSES, seeds, 1)) if seeds > 1 else 0.0
    between = np.repeat(sample.between, draws)[:, None, None]
    other = between * shared + np.sqrt(1 - between**2) * own
    arms = []
    for counts, latent, mean, moved in ((base, shared, sample.rate, 0.0), (tuned, other, sample.rate + effect, shift)):
        chances = _rates(latent, mean, sample.within)
        if seeds > 1:
            chances = special.expit(special.logit(np.clip(chances, _ALMOST, 1 - _ALMOST)) + moved)
        arms.append(arm_of(generator.binomial(counts.astype(np.int64), chances).astype(np.float64), counts))
    return arms[0], arms[1]


def _rates(latent: Draws, mean: Float[ndarray, " guess"], correlation: Float[ndarray, " guess"]) -> Draws:
    """Beta quantiles of standard normals with this mean, of which answers to one question have this correlation; read off a
    table for every guess. Draws of one guess stand together."""
    worth = 1 / np.clip(correlation, _ALMOST, 1 - _ALMOST) - 1
    mean = np.clip(mean, _ALMOST, 1 - _ALMOST)
    table = special.betaincinv((mean * worth)[:, None], ((1 - mean) * worth)[:, None], special.ndtr(_NODES))
    own = latent.reshape(len(table), -1)
    found = [np.interp(part, _NODES, row) for part, row in zip(own, table, strict=True)]
    return np.stack(found).reshape(latent.shape)
