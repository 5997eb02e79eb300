"""A behaviour without paired answers, by what both models say next where a text could still go either way. Ours.

At the first word of a behaviour the matter is mostly settled: what comes before has told which way the text goes, and both
models know it. So texts of the behaviour, and of the same genre without it (`mneme.predict.behaviour`), are cut right before
the first token that tells, and both models continue them. A continuation shows the behaviour where its telling tokens add up
to it (naive Bayes over the presence of token types, each clipped). What tells is chosen on every other text; cuts,
continuations and all that is said come from the rest, and only if the texts' own continuations there are told apart better
than with permuted labels.

Law *identity*: exactly 0 where the models are equal (they draw with equal random numbers). *Antisymmetry*: swapping the pair
flips the sign.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.errors import EmptyMask
from mneme.predict.behaviour import TELLING, BehaviourText
from mneme.predict.matching import CLIP, LEAST_PRESENT, presence_log_ratio
from mneme.predict.verdicts import FEWEST

CONTINUED_UNIT = "share of sampled continuations that show it"
CONTINUED_TOKENS = 24
"""Of a continuation: a sentence or two, as asked of the audit from the start (20 to 30). Never varied."""
CONTINUATIONS = 800
"""By each model, of all cut texts together: with a share of one half in both, the interval is then ±5 points if the models
draw independently, with a tenth ±3. Never varied."""
MOST_CUTS, _MOST_EACH = 400, 8
"""Texts that are continued at most, and how often each at most. Never varied."""
_MOST_TEXTS = 4000
"""Texts that are looked at: ten for each that is continued. A round number that was never varied."""
_PERMUTATIONS = 19
"""Permuted labels that the true ones must all surpass: p <= 1/20."""


class Texts(NamedTuple):
    """Beginnings of documents of a behaviour and of the rest of its genre, as they stand in the packed text."""

    start: Int[ndarray, " text"]
    stop: Int[ndarray, " text"]
    """Token behind the last one of the text's first passage."""
    shows: Bool[ndarray, " text"]


class Cuts(NamedTuple):
    """Where texts are cut, and what tells a continuation."""

    start: Int[ndarray, " cut"]
    stop: Int[ndarray, " cut"]
    """The first token that tells, which is not given; at least one token stands before it."""
    ratio: Float[ndarray, " type"]
    """Nats for the behaviour by which a token type tells; 0 where it does not."""


def texts_of(text: BehaviourText, passage: Int[ndarray, " token"], pieces: Int[ndarray, "piece 2"]) -> Texts:
    """The documents whose first passage is of the behaviour or of the rest of its genre; of each, that passage. `pieces`:
    (start, end) of the documents in the packed text, ascending. Of very many, `_MOST_TEXTS` spread over the text."""
    start, end = pieces.T
    first = passage[start]
    ends = np.append(np.flatnonzero(np.diff(passage)) + 1, len(passage))
    stop = np.minimum(end, ends[np.searchsorted(ends, start, side="right")])
    kept = np.flatnonzero(text.member[first] | text.other[first])
    kept = kept[np.linspace(0, len(kept) - 1, min(len(kept), _MOST_TEXTS)).round().astype(np.int64)]
    return Texts(start[kept], stop[kept], text.member[first][kept])


def cut_texts(token: Int[ndarray, " token"], texts: Texts, *, seed: int) -> Cuts:
    """What tells, from every other text, and where the rest is cut, `MOST_CUTS` at most.

    Errors: EmptyMask, with the reason, where there are fewer than 8 texts to cut of either kind, or where they are told apart
    no better than with permuted labels.
    """
    chooses = np.arange(len(texts.shows)) % 2 == 0
    ratio = _ratio(token, texts, chooses, texts.shows)
    where, label, reached = _confirming(token, texts, ~chooses, ratio)
    if min(int(label.sum()), int((~label).sum())) < FEWEST:
        raise EmptyMask(f"fewer than {2 * FEWEST} texts, half of the behaviour and half not, can be cut before they part")
    generator = np.random.default_rng(seed)
    for _ in range(_PERMUTATIONS):
        shuffled = texts.shows.copy()
        shuffled[chooses] = generator.permutation(texts.shows[chooses])
        if _confirming(token, texts, ~chooses, _ratio(token, texts, chooses, shuffled))[2] >= reached:
            raise EmptyMask("text of the behaviour is told from other text like it no better than by chance")
    drawn = np.sort(generator.permutation(len(where))[:MOST_CUTS])
    return Cuts(where[drawn, 0], where[drawn, 1], ratio)


def times_each(n_cuts: int) -> int:
    """How often each cut text is continued."""
    return max(1, min(_MOST_EACH, CONTINUATIONS // max(1, n_cuts)))


def shows_it(continuation: Sequence[int], ratio: Float[ndarray, " type"]) -> bool:
    """Whether the telling tokens of a continuation, each type once, add up to the behaviour."""
    kinds = np.unique(np.array(continuation, dtype=np.int64))
    return bool(ratio[kinds[kinds < len(ratio)]].sum() > 0)


def _ratio(
    token: Int[ndarray, " token"], texts: Texts, chosen: Bool[ndarray, " text"], shows: Bool[ndarray, " text"]
) -> Float[ndarray, " type"]:
    size = int(token.max(initial=0)) + 1
    here, there = (_present(token, texts, chosen & side, size) for side in (shows, ~shows))
    ratio = presence_log_ratio(here, int((chosen & shows).sum()), there, int((chosen & ~shows).sum()))
    tells = (np.abs(ratio) > TELLING) & (here + there >= LEAST_PRESENT)
    return np.where(tells, np.clip(ratio, -CLIP, CLIP), 0.0)


def _present(
    token: Int[ndarray, " token"], texts: Texts, chosen: Bool[ndarray, " text"], size: int
) -> Float[ndarray, " type"]:
    """In how many of the chosen texts each token type stands."""
    found = np.zeros(size)
    for start, stop in zip(texts.start[chosen], texts.stop[chosen], strict=True):
        found[np.unique(token[start:stop])] += 1
    return found


def _confirming(
    token: Int[ndarray, " token"], texts: Texts, chosen: Bool[ndarray, " text"], ratio: Float[ndarray, " type"]
) -> tuple[Int[ndarray, "cut 2"], Bool[ndarray, " cut"], float]:
    """((start, cut) of every chosen text that can be cut, its label, balanced accuracy of its own continuation)."""
    cuts, labels, right = [], [], []
    for start, stop, shows in zip(texts.start[chosen], texts.stop[chosen], texts.shows[chosen], strict=True):
        telling = np.flatnonzero(ratio[token[start + 1 : stop]])
        if len(telling) == 0:
            continue
        cut = int(start) + 1 + int(telling[0])
        cuts.append((int(start), cut))
        labels.append(bool(shows))
        right.append(shows_it(token[cut : min(cut + CONTINUED_TOKENS, int(stop))].tolist(), ratio) == shows)
    label, correct = np.array(labels, dtype=bool), np.array(right, dtype=bool)
    shares = [float(correct[side].mean()) for side in (label, ~label) if side.any()]
    return np.array(cuts, dtype=np.int64).reshape(-1, 2), label, float(np.mean(shares)) if shares else 0.0
