"""Key words of the contexts in which a latent fires, against the background (log-odds with an informative Dirichlet prior,
Monroe, Colaresi & Quinn 2008, eq. 16-22; "Fightin' words"), and a description scored on contexts it was not written from.

Differs from the usual auto-interpretation in that nothing is generated: words are counted. The score is the balanced
accuracy of "does this context hold a key word?" on held-out contexts against background contexts, so a description that
fits everything scores 1/2.
"""

import math
import re

import numpy as np

from mneme.errors import EmptyMask
from mneme.stats import balanced_accuracy

_WORD = re.compile(r"[^\W_]+(?:'[^\W\d_]+)?", re.UNICODE)
_PRIOR_WORDS = 500.0
"""Words of the prior in all, alpha_0 of Monroe et al. 2008: about as many as 24 contexts of 29 tokens hold. A round number
that was never varied."""
FEWEST_CONTEXTS = 5
"""Contexts of either kind below which a description is not scored: one of them would be more than 10 points. Never varied."""
_KEY_WORDS = 8
"""Key words of a latent at most: one line of the page. A round number that was never varied."""
_TELLING_Z = 2.0
"""z from which a word is a key word: two standard deviations, about the 95 % point. Never varied."""


def context_words(text: str) -> list[str]:
    """Words of a context in lower case, in order; numbers count as words."""
    return [word.casefold() for word in _WORD.findall(text)]


def key_words(contexts: list[str], background: list[str], *, limit: int = _KEY_WORDS) -> list[tuple[str, float]]:
    """Words whose presence marks `contexts` against `background`, with their z-scores, strongest first.

    Counts are numbers of contexts that hold the word, so one long context cannot carry a word. Only z > 2 and words in at
    least 2 contexts (1 where there is only 1).

    Errors: EmptyMask without contexts or background.
    """
    if not contexts or not background:
        raise EmptyMask("Key words need at least one context and one background context.")
    inside, outside = _presence(contexts), _presence(background)
    n_in, n_out = sum(inside.values()), sum(outside.values())
    total = n_in + n_out
    scored = []
    for word, count in inside.items():
        if count < min(2, len(contexts)):
            continue
        prior = _PRIOR_WORDS * (count + outside.get(word, 0)) / total
        a, b = count + prior, outside.get(word, 0) + prior
        gap = math.log(a / (n_in + _PRIOR_WORDS - a)) - math.log(b / (n_out + _PRIOR_WORDS - b))
        z = gap / math.sqrt(1 / a + 1 / b)
        if z > _TELLING_Z:
            scored.append((word, z))
    scored.sort(key=lambda pair: (-pair[1], pair[0]))
    return scored[:limit]


def _presence(contexts: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for context in contexts:
        for word in dict.fromkeys(context_words(context)):
            counts[word] = counts.get(word, 0) + 1
    return counts


def detection_score(words: list[str], held_out: list[str], background: list[str]) -> float | None:
    """Balanced accuracy of "the context holds at least one of `words`" on `held_out` (true) against `background` (false).

    None where fewer than 5 contexts of either kind are left to judge by: a typed absence, not a zero.
    """
    if min(len(held_out), len(background)) < FEWEST_CONTEXTS or not words:
        return None
    wanted = set(words)
    said = np.array([bool(wanted & set(context_words(text))) for text in [*held_out, *background]])
    true = np.arange(len(said)) < len(held_out)
    return balanced_accuracy(said, true)
