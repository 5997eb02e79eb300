"""What two models' scores of the same choices say: accuracy, p(right), margin, and flips against chance, paired.

Accuracy moves late: a model near chance can lose most of what it knew of an area while its picks stay where they were, and
the odds of the right choice fall at once. So all of them are kept side by side, question by question.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import special

from mneme.errors import BadSuite
from mneme.results import Estimate, TooFew
from mneme.stats import Rate, mcnemar_exact, paired_change
from mneme.stats.linearised import degrees_by_data, degrees_by_size, residuals_of
from mneme.stats.means import FEWEST_CLUSTERS


class ReadChoices(NamedTuple):
    """One model's choices, question by question."""

    correct: Bool[ndarray, " question"]
    """The right choice is the likeliest per token (length-normalised)."""
    p_right: Float[ndarray, " question"]
    """Probability of the right choice among the choices: softmax of their log-likelihoods."""
    margin: Float[ndarray, " question"]
    """Log odds of the right choice against the others together, nats: logit of `p_right`, which does not saturate."""


class Flips(NamedTuple):
    """Questions answered right by one model and wrong by the other."""

    lost: int
    """Right before, wrong after (1 to 0)."""
    gained: int
    """Wrong before, right after (0 to 1)."""
    by_guessing: float
    """Lost, and gained, if what neither model knows were guessed anew (see `flips`)."""
    p_value: float
    """Of as many lost as gained: exact McNemar."""


def read_scores(
    sums: Sequence[Float[ndarray, " _"]], tokens: Sequence[Int[ndarray, " _"]], right: Int[ndarray, " question"]
) -> ReadChoices:
    """Read one model's scores: nats of every choice, its number of tokens, and which choice is right."""
    count = len(sums)
    correct, margin = np.zeros(count, dtype=np.bool_), np.zeros(count)
    for i, (nats, length) in enumerate(zip(sums, tokens, strict=True)):
        answer = int(right[i])
        correct[i] = int((nats / length).argmax()) == answer
        margin[i] = nats[answer] - np.logaddexp.reduce(np.delete(nats, answer))
    return ReadChoices(correct, 1 / (1 + np.exp(-np.clip(margin, -500, 500))), margin)


def flips(before: Bool[ndarray, " question"], after: Bool[ndarray, " question"], choices: float) -> Flips:
    """Lost and gained answers beside those that guessing alone makes, after "Mapping forgetting" (2510.17776).

    Of k choices a guesser gets 1/k, so the share of questions that a model of accuracy a does not know is (1 - a) k / (k - 1),
    at most 1. Two independent guesses lose (1/k)(1 - 1/k) of the questions that neither model knows; `by_guessing` is that
    number, with the smaller share of the two models (ours: the paper takes the share from one). `choices` is the mean k.
    """
    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    chance = 1 / choices
    unknown = min(1.0, float((1 - max(before.mean(), after.mean())) / (1 - chance))) if len(before) else 0.0
    return Flips(lost, gained, len(before) * unknown * chance * (1 - chance), mcnemar_exact(lost, gained))


def paired(
    before: Float[ndarray, " question"], after: Float[ndarray, " question"], clusters: Sequence[str], unit: str
) -> Rate:
    """Mean of `after` minus mean of `before` over the same questions; interval clustered by `clusters` (sections, say).

    The differences are numbers without a scale: Student's t on the linearised mean of the clusters (`stats/linearised.py`),
    as decision 0003 has it. An interval made for means on a scale does not believe that questions which moved alike move
    alike, and calls a shift of -0.9 +- 0.01 in forty questions unsure; the studentised bootstrap of `clustered_mean` stretches
    that of twenty facts of which one moved to several times its scale. Two models that answer every question exactly alike
    have changed by [0, 0]. Raises BadSuite below `FEWEST_CLUSTERS` clusters, or where all moved by exactly the same.
    """
    index, counts = _clusters(clusters)
    sums = np.bincount(index, weights=after - before)
    value, residuals = residuals_of(sums, counts)
    error = math.sqrt(float((residuals**2).sum()))
    same = np.array_equal(before, after)
    if len(counts) < FEWEST_CLUSTERS or (error <= 1e-12 * abs(float(value)) and not same):
        needed = max(FEWEST_CLUSTERS, len(counts) + 1)
        return _enough(TooFew(value=float(value), unit=unit, n=len(counts), needed=needed, of="questions"), unit)
    degrees = len(counts) - 1.0 if same else min(degrees_by_size(counts), float(degrees_by_data(residuals)))
    half = float(special.stdtrit(degrees, 0.975)) * error
    estimate = Estimate(value=float(value), low=float(value) - half, high=float(value) + half, unit=unit, n=len(counts))
    return Rate(estimate, error, degrees, answers=int(counts.sum()))


def paired_share(
    before: Bool[ndarray, " question"], after: Bool[ndarray, " question"], clusters: Sequence[str], unit: str
) -> Rate:
    """The same for answers that are right or not: a change of rates, whose interval has a width where no answer flipped."""
    index, counts = _clusters(clusters)
    hits = [np.bincount(index, weights=values.astype(np.float64)) for values in (before, after)]
    return _enough(paired_change(hits[0], counts, hits[1], counts, unit), unit)


def _clusters(names: Sequence[str]) -> tuple[Int[ndarray, " question"], Float[ndarray, " cluster"]]:
    """(number of each question's cluster, questions of each cluster)."""
    _, index = np.unique(np.array(names, dtype=str), return_inverse=True)
    return index, np.bincount(index).astype(np.float64)


def _enough(found: Rate | TooFew, unit: str) -> Rate:
    if isinstance(found, TooFew):
        raise BadSuite(f"A change of {unit} was asked of {found.told()}. Ask about more questions.")
    return found
