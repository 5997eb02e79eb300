"""Figures of merit of predictions against truth, each by its textbook definition, and their intervals over pairs.

AUROC with ties as half (Mann & Whitney 1947). Average precision as the step sum over distinct thresholds, ties taken together
(no interpolation). Expected calibration error over ten bins of equal width (Naeini et al. 2015; Guo et al. 2017).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.results import Estimate
from mneme.stats import bootstrap_weights

SAID = 0.5
"""P from which a predictor says that there is a material change."""
_BINS = 10
_RESAMPLES = 2000


class Judged(NamedTuple):
    """What one predictor said of some cells, and the truth."""

    probability: Float[ndarray, " cell"]
    material: Bool[ndarray, " cell"]
    direction_right: Bool[ndarray, " cell"]
    """The sign it gave is that of the measured change."""
    pair: Int[ndarray, " cell"]
    """Number of the pair that each cell is of."""


def auroc(score: Float[ndarray, " cell"], true: Bool[ndarray, " cell"], weight: Float[ndarray, " cell"]) -> float | None:
    """Chance that a true cell scores above a false one, ties half; None where either kind is missing."""
    positive, negative = weight * true, weight * ~true
    if positive.sum() == 0 or negative.sum() == 0:
        return None
    _, rank = np.unique(score, return_inverse=True)
    above = np.bincount(rank, weights=positive)
    below = np.bincount(rank, weights=negative)
    beaten = np.cumsum(below) - below / 2
    return float((above * beaten).sum() / (positive.sum() * negative.sum()))


def average_precision(
    score: Float[ndarray, " cell"], true: Bool[ndarray, " cell"], weight: Float[ndarray, " cell"]
) -> float | None:
    """Sum over thresholds, from the top, of (recall gained) x (precision there); None without true cells."""
    if (weight * true).sum() == 0:
        return None
    _, rank = np.unique(-score, return_inverse=True)
    hits = np.bincount(rank, weights=weight * true)
    said = np.bincount(rank, weights=weight)
    precision = np.cumsum(hits) / np.maximum(np.cumsum(said), 1e-30)
    return float((hits * precision).sum() / hits.sum())


def expected_calibration_error(
    probability: Float[ndarray, " cell"], true: Bool[ndarray, " cell"], weight: Float[ndarray, " cell"]
) -> float:
    """Mean over cells of |mean P - share true| of their bin; ten bins of equal width, 1 in the last."""
    bins = np.minimum((probability * _BINS).astype(int), _BINS - 1)
    total = np.bincount(bins, weights=weight, minlength=_BINS)
    said = np.bincount(bins, weights=weight * probability, minlength=_BINS)
    was = np.bincount(bins, weights=weight * true, minlength=_BINS)
    return float(np.abs(said - was).sum() / total.sum())


def figures(judged: Judged, weight: Float[ndarray, " cell"]) -> dict[str, float]:
    """Every figure that has a value. `weight`: how often each cell counts (resampling)."""
    p, true = judged.probability, judged.material
    said = p >= SAID
    hit, miss = (weight * (said & true)).sum(), (weight * (~said & true)).sum()
    alarm, rest = (weight * (said & ~true)).sum(), (weight * (~said & ~true)).sum()
    found: dict[str, float | None] = {
        "accuracy": _ratio(hit + rest, weight.sum()),
        "balanced accuracy": _mean_of(_ratio(hit, hit + miss), _ratio(rest, rest + alarm)),
        "precision": _ratio(hit, hit + alarm),
        "recall": _ratio(hit, hit + miss),
        "F1": _ratio(2 * hit, 2 * hit + miss + alarm),
        "AUROC": auroc(p, true, weight),
        "average precision": average_precision(p, true, weight),
        "Brier": _ratio((weight * (p - true) ** 2).sum(), weight.sum()),
        "ECE": expected_calibration_error(p, true, weight) if weight.sum() else None,
        "false alarms": _ratio(alarm, alarm + rest),
        "direction": _ratio((weight * (said & true & judged.direction_right)).sum(), hit),
    }
    return {name: value for name, value in found.items() if value is not None}


def estimates(judged: Judged, *, seed: int) -> dict[str, Estimate]:
    """The figures with percentile intervals; pairs are resampled whole."""
    n = len(np.unique(judged.pair))
    values = figures(judged, np.ones(len(judged.pair)))
    drawn = _resampled(judged, figures, seed)
    return {name: _estimate(value, [one[name] for one in drawn if name in one], n) for name, value in values.items()}


def differences(first: Judged, second: Judged, *, seed: int) -> dict[str, Estimate]:
    """Figures of `first` minus those of `second`, the same cells in the same order, the same pairs drawn for both."""
    n = len(np.unique(first.pair))
    ones = np.ones(len(first.pair))

    def gap(judged: Judged, weight: Float[ndarray, " cell"]) -> dict[str, float]:
        here, there = figures(judged, weight), figures(second, weight)
        return {name: here[name] - there[name] for name in here if name in there}

    drawn = _resampled(first, gap, seed)
    values = gap(first, ones)
    return {name: _estimate(value, [one[name] for one in drawn if name in one], n) for name, value in values.items()}


def _resampled(
    judged: Judged, compute: Callable[[Judged, Float[ndarray, " cell"]], dict[str, float]], seed: int
) -> list[dict[str, float]]:
    names, pair = np.unique(judged.pair, return_inverse=True)
    weights = bootstrap_weights(len(names), _RESAMPLES, seed)
    return [compute(judged, row[pair]) for row in weights]


def _estimate(value: float, drawn: Sequence[float], n: int) -> Estimate:
    low, high = np.quantile(np.array([*drawn, value]), [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high), unit="share", n=n)


def _ratio(above: float, below: float) -> float | None:
    return float(above / below) if below > 0 else None


def _mean_of(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else (one + other) / 2
