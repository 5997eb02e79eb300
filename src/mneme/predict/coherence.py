"""Whether passages that hold an area's keywords are of one subject, or hold them by chance.

Keywords dealt out to other areas' names still find passages that hold two of them, in any text. What such passages lack is
each other's company: their other words are no more alike than those of any text. So seven eighths of them teach a naive Bayes
(the keywords left out; the odds a word, so that long passages are not ahead) and the last eighth is ranked by it among the
passages that hold no two keywords, each in its turn. The area under that curve (Mann & Whitney 1947) is 1/2 by chance, and
near 1 for text of one subject. Ours, in the spirit of co-training
(Blum & Mitchell 1998): the keywords and the rest of the words have to agree.
"""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

FEWEST_WORDS = 100_000
"""Words, and pairs of words, each once a passage, below which a text teaches too little for this (about a thousand passages of
a hundred tokens): keywords are then taken at their word."""
LEAST = 0.75
"""Area under the curve that has to be passed at 95 %: half way between chance and certainty."""
_FOLDS = 8
"""Parts that the seeds are dealt into, each judged by the others. Two halves lost psychology of eleven present subjects
(docs/log.md, the audit that travels, second part); eight kept them all. Chosen on those paragraphs."""
_ONE_SIDED = 1.645
"""95 % point of the standard normal distribution."""
_BISECTIONS = 60
"""Halvings: beyond the 53 bits of a float64."""


def area_under_curve(here: Float[ndarray, " here"], there: Float[ndarray, " there"]) -> float:
    """Probability that a value of `here` is above one of `there`, ties half."""
    _, place, count = np.unique(np.concatenate([here, there]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]  # ties share their mean rank
    return float((ranks[: len(here)].sum() - len(here) * (len(here) + 1) / 2) / (len(here) * len(there)))


def least_area(area: float, n_here: int, n_there: int) -> float:
    """Lower bound at 95 % of an area under the curve: less 1.645 standard errors under chance,
    sqrt((n + m + 1) / (12 n m))."""
    return area - _ONE_SIDED * math.sqrt((n_here + n_there + 1) / (12 * n_here * n_there))


def folds(seed: Bool[ndarray, " passage"]) -> Iterator[tuple[Bool[ndarray, " passage"], Bool[ndarray, " passage"]]]:
    """(seeds that teach, seeds that are asked): every eighth is asked in its turn."""
    place = np.flatnonzero(seed)
    for fold in range(min(_FOLDS, len(place))):
        asked = np.zeros_like(seed)
        asked[place[fold::_FOLDS]] = True
        yield seed & ~asked, asked


def poisson_rate(mean: float) -> float:
    """Rate of a Poisson variable whose mean among the values of at least 2 is `mean`; 0 where that is 2. By bisection."""
    low, high = 1e-6, max(mean, 2.0)  # of a rate of 1e-6 the mean is 2 to six digits
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        at_least_one = -math.expm1(-middle)
        if middle * at_least_one / (at_least_one - middle * math.exp(-middle)) < mean:
            low = middle
        else:
            high = middle
    return low
