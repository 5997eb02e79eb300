"""The data of benchmarks/coverage.py: answers and numbers in clusters, with a truth put in by hand."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import special

CLUSTERS = (5, 10, 20, 50, 200)
RATES = (0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
FLIPS = (0.01, 0.05, 0.2, 0.4)
SHAPES = ("normal", "heavy tails", "right-skewed", "left-skewed")
CORRELATION, BETWEEN_MODELS = 0.11, 0.7
"""Within questions: the median over published models. Between the rates of a question under two models."""
ODDS = 3.0
"""The effect on a rate, as an odds ratio towards the middle."""


class Case(NamedTuple):
    """One cell."""

    clusters: int
    skewed: bool
    level: float | str
    """A rate, or the shape of the numbers."""
    effect: bool


def batches(rng: np.random.Generator, case: Case, runs: int) -> Iterator[tuple[np.ndarray, int]]:
    """(answers by cluster, runs with them): 20 each, or lognormal with that mean, drawn again for every 20 runs."""
    if not case.skewed:
        yield np.full(case.clusters, 20.0), runs
        return
    for first in range(0, runs, 20):
        drawn = np.maximum(1.0, np.round(20 * np.exp(rng.normal(-0.5, 1.0, case.clusters))))
        yield drawn, min(20, runs - first)


_PLACES = np.linspace(-5, 5, 2001)


@cache
def _quantiles(rate: float) -> np.ndarray:
    a, b = rate * (1 - CORRELATION) / CORRELATION, (1 - rate) * (1 - CORRELATION) / CORRELATION
    return np.asarray(special.betaincinv(a, b, special.ndtr(_PLACES)))


def own_rates(latent: np.ndarray, rate: float) -> np.ndarray:
    """Beta quantiles of standard normals: rates of questions with the usual correlation of answers."""
    return np.asarray(np.interp(latent, _PLACES, _quantiles(rate)))


def logit_rates(latent: np.ndarray, rate: float) -> np.ndarray:
    """The same, of which the logits are normal."""
    centre, width = _logits(rate)
    return np.asarray(special.expit(centre + width * latent))


@cache
def _logits(rate: float) -> tuple[float, float]:
    """(centre, width) in logits that give this mean and the usual correlation, by halving."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    weights = weights / weights.sum()
    centre, narrow, wide = 0.0, 0.0, 12.0
    for _ in range(40):
        width, low, high = (narrow + wide) / 2, -60.0, 60.0
        for _ in range(50):
            centre = (low + high) / 2
            less = special.expit(centre + width * nodes) @ weights < rate
            low, high = (centre, high) if less else (low, centre)
        spread = (special.expit(centre + width * nodes) - rate) ** 2 @ weights
        narrow, wide = (width, wide) if spread < CORRELATION * rate * (1 - rate) else (narrow, width)
    return centre, (narrow + wide) / 2


def moved(rate: float) -> float:
    """The rate after the effect."""
    odds = rate / (1 - rate) * (ODDS if rate <= 0.5 else 1 / ODDS)
    return odds / (1 + odds)


def pairs(rng: np.random.Generator, case: Case, runs: int, seeds: int = 1) -> tuple[np.ndarray, np.ndarray, float]:
    """(rates of the questions under base [run, 1, cluster] and tuned [run, seed, cluster], true change)."""
    rate = float(case.level)
    after = moved(rate) if case.effect else rate
    shared = rng.normal(size=(runs, 1, case.clusters))
    own = rng.normal(size=(runs, seeds, case.clusters))
    seed = np.sqrt(0.1) * rng.normal(size=(runs, seeds, 1)) if seeds > 1 else 0.0
    left = 1 - BETWEEN_MODELS**2 - (0.1 if seeds > 1 else 0.0)
    tuned = own_rates(BETWEEN_MODELS * shared + seed + np.sqrt(left) * own, after)
    return own_rates(shared, rate), tuned, after - rate


def scored(rng: np.random.Generator, own: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Sums of scores 0-1 whose mean is the rate of the question, spread over the scale (beta, a + b = 4)."""
    owner = np.repeat(np.arange(len(n)), n.astype(int))
    mean = np.clip(own[..., owner], 1e-6, 1 - 1e-6)
    return np.asarray(
        np.add.reduceat(rng.beta(4 * mean, 4 * (1 - mean)), np.concatenate([[0], np.cumsum(n[:-1])]).astype(int), axis=-1)
    )


def noise(rng: np.random.Generator, shape: float | str, size: tuple[int, ...]) -> np.ndarray:
    """Numbers of mean 0 and the shape: normal, Student's t of 4 degrees, exponential to the right or the left."""
    if shape == "normal":
        return rng.normal(size=size)
    if shape == "heavy tails":
        return rng.standard_t(4, size=size)
    return np.asarray((rng.exponential(size=size) - 1) * (1 if shape == "right-skewed" else -1))


def crossed(rng: np.random.Generator, case: Case, types: int) -> tuple[np.ndarray, np.ndarray]:
    """Items of `clusters` documents and so many word types, 10 a document."""
    kinds = case.clusters, types
    weights = [np.exp(rng.normal(size=n)) if case.skewed else np.ones(n) for n in kinds]
    drawn = [rng.choice(n, 10 * case.clusters, p=w / w.sum()) for n, w in zip(kinds, weights, strict=True)]
    return drawn[0], drawn[1]


def both_ways(rng: np.random.Generator, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Normal noise of variance 1 of which a tenth belongs to the document and a tenth to the word type."""
    own = rng.normal(size=len(first)) * np.sqrt(0.8)
    for of in (first, second):
        own = own + np.sqrt(0.1) * rng.normal(size=int(of.max()) + 1)[of]
    return own


def turned(latent: np.ndarray, case: Case, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """(changes of a probability, their mean): losses of .4 to 1 at the rate of the case, gains as often, or with an effect a
    quarter as often; next to nothing elsewhere."""
    lost = float(case.level)
    gained = lost / 4 if case.effect else lost
    sign = np.where(latent < special.ndtri(lost), -1.0, np.where(latent > special.ndtri(1 - gained), 1.0, 0.0))
    change = np.where(sign != 0, sign * rng.uniform(0.4, 1.0, len(latent)), 0.002 * rng.normal(size=len(latent)))
    return change, 0.7 * (gained - lost)
