"""Figures of merit of predictions against truth, each by its textbook definition, and their intervals over pairs.

AUROC with ties as half (Mann & Whitney 1947). Average precision as the step sum over distinct thresholds, ties taken together
(no interpolation). Expected calibration error over ten bins of equal width (Naeini et al. 2015; Guo et al. 2017).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.results import Estimate, TooFew
from mneme.stats import bootstrap_weights, clustered_rate, expanded_interval

SAID = 0.5
"""P from which a predictor says that there is a material change."""
_BINS = 10
_RESAMPLES = 2000
_FEWEST = 5
"""Pairs, as for any rate (`stats.clustered_rate`)."""


class Judged(NamedTuple):
    """What one predictor said of some cells, and the truth."""

    probability: Float[ndarray, " cell"]
    material: Bool[ndarray, " cell"]
    direction_right: Bool[ndarray, " cell"]
    """The sign it gave is that of the measured change."""
    pair: Int[ndarray, " cell"]
    """Number of the pair that each cell is of."""
    beyond: Float[ndarray, " cell"] | None = None
    """Where given: probability that the true change is material, NaN for cells that were called. Cells with one are grey: they
    count for the Brier score alone."""

    def within(self, where: Bool[ndarray, " cell"]) -> "Judged":
        """The same of some cells."""
        return Judged(
            probability=self.probability[where],
            material=self.material[where],
            direction_right=self.direction_right[where],
            pair=self.pair[where],
            beyond=None if self.beyond is None else self.beyond[where],
        )

    @property
    def clear(self) -> Bool[ndarray, " cell"]:
        """Cells that were called either way."""
        return np.ones(len(self.pair), dtype=bool) if self.beyond is None else np.isnan(self.beyond)


Weights = Float[ndarray, "resample cell"]
"""How often each cell counts; one row of ones is the plain figure."""
Values = Float[ndarray, " resample"]
"""A figure for every row of weights; NaN where it has no value."""


def auroc(score: Float[ndarray, " cell"], true: Bool[ndarray, " cell"], weights: Weights) -> Values:
    """Chance that a true cell scores above a false one, ties half; no value where either kind is missing."""
    order, start = _by_score(score)
    above = np.add.reduceat((weights * true)[:, order], start, axis=1)
    below = np.add.reduceat((weights * ~true)[:, order], start, axis=1)
    beaten = np.cumsum(below, axis=1) - below / 2
    return _ratio((above * beaten).sum(axis=1), above.sum(axis=1) * below.sum(axis=1))


def average_precision(score: Float[ndarray, " cell"], true: Bool[ndarray, " cell"], weights: Weights) -> Values:
    """Sum over thresholds, from the top, of (recall gained) x (precision there); no value without true cells."""
    order, start = _by_score(-score)
    hits = np.add.reduceat((weights * true)[:, order], start, axis=1)
    said = np.add.reduceat(weights[:, order], start, axis=1)
    precision = np.cumsum(hits, axis=1) / np.maximum(np.cumsum(said, axis=1), 1e-30)
    return _ratio((hits * precision).sum(axis=1), hits.sum(axis=1))


def _by_score(score: Float[ndarray, " cell"]) -> tuple[Int[ndarray, " cell"], Int[ndarray, " tie"]]:
    """Ascending order, and where each distinct score starts in it."""
    order = np.argsort(score, kind="stable")
    return order, np.unique(score[order], return_index=True)[1]


def expected_calibration_error(probability: Float[ndarray, " cell"], true: Bool[ndarray, " cell"], weights: Weights) -> Values:
    """Mean over cells of |mean P - share true| of their bin; ten bins of equal width, 1 in the last."""
    inside = np.minimum((probability * _BINS).astype(int), _BINS - 1)[:, None] == np.arange(_BINS)
    gap = weights @ (inside * (probability - true)[:, None])
    return _ratio(np.abs(gap).sum(axis=1), weights.sum(axis=1))


def figures(judged: Judged, weights: Weights) -> dict[str, Values]:
    """Every figure, for every row of weights."""
    p, true = judged.probability, judged.material
    truth = true.astype(np.float64) if judged.beyond is None else np.where(judged.clear, true, judged.beyond)
    brier = _ratio(weights @ (p - truth) ** 2, weights.sum(axis=1))
    weights = weights * judged.clear
    said = p >= SAID
    hit, miss = weights @ (said & true), weights @ (~said & true)
    alarm, rest = weights @ (said & ~true), weights @ (~said & ~true)
    cells = weights.sum(axis=1)
    return {
        "accuracy": _ratio(hit + rest, cells),
        "balanced accuracy": (_ratio(hit, hit + miss) + _ratio(rest, rest + alarm)) / 2,
        "precision": _ratio(hit, hit + alarm),
        "recall": _ratio(hit, hit + miss),
        "F1": _ratio(2 * hit, 2 * hit + miss + alarm),
        "AUROC": auroc(p, true, weights),
        "average precision": average_precision(p, true, weights),
        "Brier": brier,
        "ECE": expected_calibration_error(p, true, weights),
        "false alarms": _ratio(alarm, alarm + rest),
        "direction": _ratio(weights @ (said & true & judged.direction_right), hit),
    }


def estimates(judged: Judged, *, seed: int) -> dict[str, Estimate]:
    """The figures that have a value; pairs are the clusters.

    Shares of cells have the interval of `clustered_rate`, which is never 0 wide; the others an expanded percentile interval of
    pairs drawn again whole. Of fewer than 5 pairs nothing is known: [0, 1]."""
    values = figures(judged, np.ones((1, len(judged.pair))))
    drawn = figures(judged, _drawn(judged, seed))
    names, pair = np.unique(judged.pair, return_inverse=True)
    told, shares = {}, _shares(judged)
    for name, value in values.items():
        if np.isnan(value[0]):
            continue
        if name not in shares:
            told[name] = _estimate(float(value[0]), drawn[name], len(names), 0.0)
            continue
        hits, counts = (np.bincount(pair, weights=part, minlength=len(names)) for part in shares[name])
        found = clustered_rate(hits, counts, "share")
        few = Estimate(value=float(value[0]), low=0.0, high=1.0, unit="share", n=len(names))
        told[name] = few if isinstance(found, TooFew) else found.estimate.model_copy(update={"n": len(names)})
    return told


def _shares(judged: Judged) -> dict[str, tuple[Bool[ndarray, " cell"], Bool[ndarray, " cell"]]]:
    """Figures that are shares of cells: (those that hit, those that are counted)."""
    clear = judged.clear
    said, true = (judged.probability >= SAID) & clear, judged.material & clear
    return {
        "accuracy": ((said == true) & clear, clear),
        "precision": (said & true, said),
        "recall": (said & true, true),
        "false alarms": (said & ~true, ~true & clear),
        "direction": (said & true & judged.direction_right, said & true),
    }


def differences(first: Judged, second: Judged, *, seed: int) -> dict[str, Estimate]:
    """Figures of `first` minus those of `second`, the same cells in the same order, the same pairs drawn for both."""
    ones, weights = np.ones((1, len(first.pair))), _drawn(first, seed)
    here, there = figures(first, ones), figures(second, ones)
    drawn, other = figures(first, weights), figures(second, weights)
    n = len(np.unique(first.pair))
    return {
        name: _estimate(float(here[name][0] - there[name][0]), drawn[name] - other[name], n, -1.0)
        for name in here
        if not np.isnan(here[name][0] - there[name][0])
    }


def _drawn(judged: Judged, seed: int) -> Weights:
    names, pair = np.unique(judged.pair, return_inverse=True)
    return bootstrap_weights(len(names), _RESAMPLES, seed)[:, pair]


def _estimate(value: float, drawn: Values, n: int, least: float) -> Estimate:
    """Of fewer than 5 pairs the whole range, from `least` to 1."""
    low, high = (least, 1.0) if n < _FEWEST else expanded_interval(drawn[~np.isnan(drawn)], value, n)
    return Estimate(value=value, low=low, high=high, unit="share", n=n)


def _ratio(above: Values, below: Values) -> Values:
    return np.asarray(np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan))
