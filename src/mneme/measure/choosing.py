"""What two models' scores of the same choices say: accuracy, p(right), margin, and flips against chance, paired.

Accuracy moves late: a model near chance can lose most of what it knew of an area while its picks stay where they were, and
the odds of the right choice fall at once. So all of them are kept side by side, question by question.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.errors import BadSuite
from mneme.results import TooFew
from mneme.stats import Rate, mcnemar_exact, paired_mean_change


class Chosen(NamedTuple):
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


def chosen(
    sums: Sequence[Float[ndarray, " _"]], tokens: Sequence[Int[ndarray, " _"]], right: Int[ndarray, " question"]
) -> Chosen:
    """Read one model's scores: nats of every choice, its number of tokens, and which choice is right."""
    count = len(sums)
    correct, margin = np.zeros(count, dtype=np.bool_), np.zeros(count)
    for i, (nats, length) in enumerate(zip(sums, tokens, strict=True)):
        answer = int(right[i])
        correct[i] = int((nats / length).argmax()) == answer
        margin[i] = nats[answer] - np.logaddexp.reduce(np.delete(nats, answer))
    return Chosen(correct, 1 / (1 + np.exp(-np.clip(margin, -500, 500))), margin)


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
    before: Float[ndarray, " question"] | Bool[ndarray, " question"],
    after: Float[ndarray, " question"] | Bool[ndarray, " question"],
    clusters: Sequence[str],
    unit: str,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Rate:
    """Mean of `after` minus mean of `before` over the same questions; interval clustered by `clusters` (sections, say).

    Raises BadSuite below the number of clusters at which that interval holds.
    """
    _, index = np.unique(np.array(clusters, dtype=str), return_inverse=True)
    counts = np.bincount(index).astype(np.float64)
    sums = [np.bincount(index, weights=np.asarray(values, dtype=np.float64)) for values in (before, after)]
    found = paired_mean_change(sums[0], counts, sums[1], counts, unit, bounds=bounds)
    if isinstance(found, TooFew):
        raise BadSuite(f"A change of {unit} was asked of {found.told()}. Ask about more questions.")
    return found
