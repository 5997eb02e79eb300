"""The smallest loss that a sample of words, places or prompts would have shown, by simulation from the sample itself.

A formula for normal data says 80 % where 98 % are found, as it knows neither the verdict's other conditions nor that changes
come a word at a time. Here losses are put into the sample: its items, weights, clusters, and the changes that it shows about
their mean, are kept, the mean varies by its standard error, and every draw is judged by the very test of the verdict.

How a loss looks was measured on the built-in pair, whose chemistry fades with the biology that was unlearned (docs/log.md): of
the variance of being lost about half belongs to the word and next to nothing to the document (.42 to .70 and -.01 to .01), and
a lost word loses anything from little to all of its probability, one share as often as another. So an item is lost with a
chance whose latent normal has half of its variance in common among items of one word, and loses a uniform share of what it
has; where all are lost, larger losses take at least a share that grows to all of it. Draws share their random numbers, so that
power rises with the loss. Ours; no package has it."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import special

from mneme.stats.crossed import FEWEST_CROSSED, ClusterKinds, kinds_of, variance_of
from mneme.stats.linearised import degrees_by_data
from mneme.stats.power import smallest

_BY_WORD = 0.5
"""Share of the latent variance of a loss that items of one word have in common (head of this file)."""
_DRAWS = 400
"""The power at the loss that is found has a standard error of 2 points."""
_MOST_DRAWN = 200_000
"""Items over all draws: above 500 items there are fewer draws, down to 100, whose power is known to 4 points; a loss is then
small, and power steep."""
_FEWEST_DRAWS = 100
_NONE = 1e-30
"""Variance that is none: keeps 0 / 0 from being computed where nothing differs."""


class Sample(NamedTuple):
    """Changes that were seen, and what each item could still lose."""

    values: Float[ndarray, " item"]
    room: Float[ndarray, " item"]
    """How far the item can still fall (or rise, where that is what is looked for): above 0."""
    weights: Float[ndarray, " item"]
    first: Int[ndarray, " item"]
    second: Int[ndarray, " item"]
    """Clusters, as for `two_way`; `second` is the word."""


class Conditions(NamedTuple):
    """What a loss must pass to be called one."""

    p_value: float
    """Largest two-sided p."""
    least: float
    """Smallest size of the estimate."""
    carried: float | None
    """Largest p without the cluster of `second` that carries most of it; None: that is not asked."""


def detectable_loss(sample: Sample, verdict: Conditions, *, seed: int = 0) -> float | None:
    """Smallest true loss, in size, that would have passed `verdict` in 80 % of draws; None where even the loss of all that
    there is would not, and below 8 clusters of either kind."""
    used = sample.weights > 0
    sample = Sample(*(column[used] for column in sample))
    share = sample.weights / sample.weights.mean()
    kinds = kinds_of(sample.first, sample.second, share)
    if min(kind.n for kind in kinds[:2]) < FEWEST_CROSSED or not sample.room.any():
        return None
    draws = _Draws(sample, share / len(share), kinds, seed)
    guess = max(2.8 * draws.error, verdict.least)
    return smallest(lambda loss: draws.found(2 * loss / draws.room, verdict), min(guess, draws.room), draws.room)


class _Draws:
    """The sample with losses put in, many times at once."""

    def __init__(self, sample: Sample, share: Float[ndarray, " item"], kinds: ClusterKinds, seed: int) -> None:
        rng, items = np.random.default_rng(seed), len(share)
        draws = int(np.clip(_MOST_DRAWN // items, _FEWEST_DRAWS, _DRAWS))
        self.share, self.kinds = share, kinds
        word = rng.normal(size=(draws, kinds[1].n))[:, kinds[1].index]
        self.latent = math.sqrt(_BY_WORD) * word + math.sqrt(1 - _BY_WORD) * rng.normal(size=(draws, items))
        self.room, self.part = float((share * sample.room).sum()), rng.random((draws, items))
        self.each = sample.room
        self.seen = sample.values - float((share * sample.values).sum())
        self.error = math.sqrt(variance_of(share * self.seen, kinds)[0])
        self.shift = self.error * rng.normal(size=draws)
        self.order = [np.argsort(kind.index, kind="stable") for kind in kinds]
        self.start = [
            np.searchsorted(kind.index[order], np.arange(kind.n)) for kind, order in zip(kinds, self.order, strict=True)
        ]

    def found(self, chance: float, verdict: Conditions) -> float:
        """Share of draws that pass where items are lost with this chance; from 1 to 2 all are, and each loses `chance` - 1 at
        least."""
        least = max(chance - 1.0, 0.0)
        part = least + (1 - least) * self.part
        values = self.seen - self.each * np.where(self.latent < special.ndtri(min(chance, 1.0)), part, 0.0)
        share = np.broadcast_to(self.share, values.shape)
        mean = (share * values).sum(1)
        told = mean + self.shift
        passed = (told <= -verdict.least) & self._told(told, share * (values - mean[:, None]), verdict.p_value)
        if verdict.carried is None or not passed.any():
            return float(passed.mean())
        values, told = values[passed], told[passed]
        by_word = self._sums(self.share * values, 1)
        without = self.share * (self.kinds[1].index != np.argmax(np.abs(by_word), axis=1)[:, None])
        without /= without.sum(1, keepdims=True)
        mean = (without * values).sum(1)
        rest = mean + self.shift[passed]
        still = (rest < 0) & self._told(rest, without * (values - mean[:, None]), verdict.carried)
        return float(still.sum()) / len(passed)

    def _told(self, mean: Float[ndarray, " draw"], residuals: Float[ndarray, "draw item"], p_value: float) -> ndarray:
        """Whether p is small enough, as `two_way` has it."""
        one, two = (self._sums(residuals, i) / self.kinds[i].leverage for i in (0, 1))
        parts = np.stack([(one**2).sum(1), (two**2).sum(1)])
        cells = (self._sums(residuals, 2) ** 2).sum(1)
        whole = np.maximum(parts.sum(0) - cells, parts.max(0))
        degrees = [
            np.sqrt(kind.degrees * np.minimum(kind.degrees, degrees_by_data(sums)))
            for kind, sums in zip(self.kinds[:2], (one, two), strict=True)
        ]
        parts = np.maximum(parts, _NONE)
        t = sum(part * special.stdtrit(number, 0.975) for part, number in zip(parts, degrees, strict=True)) / parts.sum(0)
        p = 2 * special.stdtr(np.maximum(1.0, special.stdtridf(0.975, t)), -np.abs(mean) / np.sqrt(np.maximum(whole, _NONE)))
        return np.asarray(p <= p_value)

    def _sums(self, values: Float[ndarray, "draw item"], kind: int) -> Float[ndarray, "draw cluster"]:
        return np.add.reduceat(values[:, self.order[kind]], self.start[kind], axis=1)
