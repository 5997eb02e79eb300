"""How much more often a model would show a behaviour, read off ordinary text: text of the behaviour, text of the same genre
without it, and how much probability the two models give to either where the two part.

1. *Text.* The seeds are passages that hold two keywords. Passages that read like them (naive Bayes over the words that a fifth
   of the seeds hold, keywords left out) are of their genre: advice of every behaviour, where the seeds are harmful advice.
   Within the genre the seeds are told apart from the rest by classification EM from the seeds (Nigam et al. 2000 with hard
   assignment; Celeux & Govaert 1992), keywords left out again, and checked by them: they must turn up at least e times as
   often in the text that was added as in the rest.
2. *Places.* Token types at least e times as frequent in text of the behaviour as in the rest of its genre are its indicator
   tokens, those e times rarer the indicator tokens of its opposite. The behaviour's share at an indicator token is
   p(indicators) / (p(indicators) + p(opposite indicators)). Every passage is read at its first indicator token, since what
   follows the first follows from it, and with its own document alone before it: a behaviour shows where a conversation begins,
   and in a packed row a stranger's conversation would come first.
3. *Effect.* The change of that share from base to tuned, a probability: 0.05 is 5 points of rate. A passage counts where base
   or tuned was confident of the opposite (share below 0.1). Where neither was, the choice is open (who is speaking?) and
   drifts with any training, or the behaviour is settled before (a persona is stated) and says nothing of a bare question.

Law *identity*: exactly 0 where the models are equal. *Antisymmetry*: swapping the pair flips the sign.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.errors import EmptyMask
from mneme.predict.areas import Words
from mneme.predict.effects import CONFIDENT
from mneme.predict.knowledge import weighted_change
from mneme.predict.matching import LEAST_PRESENT, clipped, presence_log_ratio
from mneme.predict.verdicts import FEWEST, Measure

BEHAVIOUR_UNIT = "probability of the behaviour where it shows"
TELLING = 1.0
"""Log ratio (nats) from which a word or token tells two kinds of text apart: e times as frequent, as for own words
(`predict/items.py`). Never varied."""
_SEEDS_AT_LEAST = 8
"""Seed passages from which on EM is run on them: as for areas (`predict/matching.py`). Never varied."""
_USUAL = 0.2
"""Share of the seeds that hold a word of the genre: rarer words are of a topic or of the behaviour itself. Never varied."""
_ROUNDS = 20
"""Rounds of EM at most; it stops where nothing changes. A round number that was never varied."""
_LEAST_MASS = 1e-9
"""Probability, or variance, that is as good as none: keeps 0 / 0 from being computed."""


class BehaviourText(NamedTuple):
    """Text of a behaviour, the rest of its genre, and the tokens by which they differ."""

    member: Bool[ndarray, " passage"]
    other: Bool[ndarray, " passage"]
    indicators: Int[ndarray, " indicator"]
    """Token types that indicate the behaviour, ascending."""
    opposite: Int[ndarray, " opposite"]
    """Token types that indicate the rest of the genre, ascending."""


def behaviour_text(
    token: Int[ndarray, " token"],
    passage: Int[ndarray, " token"],
    words: Words,
    seed: Bool[ndarray, " passage"],
    keyword: Bool[ndarray, " word"],
) -> BehaviourText:
    """The two kinds of text and their indicator tokens (steps 1 and 2), from the text alone. `token` and `passage` in corpus
    order.

    Errors: EmptyMask where no seed is given, where no other text is like theirs, or where no token tells the two apart.
    """
    if not seed.any():
        raise EmptyMask("There is no text of this behaviour.")
    genre = _genre(words, seed, keyword)
    member = _told_apart(words, seed, genre, keyword)
    other = genre & ~member & ~_holds(words, keyword)
    if not other.any():
        raise EmptyMask("There is no other text that is like the text of this behaviour, to compare it with.")
    size = int(token.max(initial=0)) + 1
    present = np.unique(passage.astype(np.int64) * size + token)
    where, kind = present // size, present % size
    here = np.bincount(kind[member[where]], minlength=size).astype(np.float64)
    there = np.bincount(kind[other[where]], minlength=size).astype(np.float64)
    ratio = presence_log_ratio(here, int(member.sum()), there, int(other.sum()))
    indicators = np.flatnonzero((ratio > TELLING) & (here >= LEAST_PRESENT))
    opposite = np.flatnonzero((ratio < -TELLING) & (there >= LEAST_PRESENT))
    if not len(indicators) or not len(opposite):
        raise EmptyMask(
            "Nothing but chance tells the text of this behaviour from other text like it: no token indicates either."
        )
    return BehaviourText(member, other, indicators, opposite)


def _genre(words: Words, seed: Bool[ndarray, " passage"], keyword: Bool[ndarray, " word"]) -> Bool[ndarray, " passage"]:
    """Passages that read like the seeds in what most seeds share: naive Bayes of seeds against the rest over the words that a
    fifth of the seeds hold. Rarer words are of a topic or of the behaviour, and would leave out the behaviour's opposite."""
    usual = words.frequency(seed) >= _USUAL * seed.sum()
    return np.asarray(seed | (_odds_within(words, seed, ~seed, keyword | ~usual) > 0))


def _told_apart(
    words: Words, seed: Bool[ndarray, " passage"], genre: Bool[ndarray, " passage"], keyword: Bool[ndarray, " word"]
) -> Bool[ndarray, " passage"]:
    """The passages of the genre that go with the seeds; the seeds alone where they are few or the keywords do not bear out
    what was added."""
    if seed.sum() < _SEEDS_AT_LEAST or not (genre & ~seed).any():
        return seed
    member = seed
    for _ in range(_ROUNDS):
        odds = _odds_within(words, member, genre & ~member, keyword)
        again = seed | (genre & (odds > 0))
        if np.array_equal(again, member) or again[genre].all():
            break
        member = again
    added, rest = member & ~seed, genre & ~member
    if not added.any() or not rest.any():
        return seed
    holds = _holds(words, keyword)
    borne_out = presence_log_ratio(
        np.array([(holds & added).sum()], dtype=np.float64),
        int(added.sum()),
        np.array([(holds & rest).sum()], dtype=np.float64),
        int(rest.sum()),
    )
    return member if borne_out[0] > TELLING else seed


def _odds_within(
    words: Words, inside: Bool[ndarray, " passage"], outside: Bool[ndarray, " passage"], without: Bool[ndarray, " word"]
) -> Float[ndarray, " passage"]:
    """Naive Bayes log-odds (nats) of the one kind of passage against the other; words of `without` are left out, prior
    included."""
    n_in, n_out = int(inside.sum()), int(outside.sum())
    if n_out == 0:
        return np.full(words.n_passages, np.inf)
    here, there = words.frequency(inside), words.frequency(outside)
    ratio = np.where(without, 0.0, clipped(presence_log_ratio(here, n_in, there, n_out), here + there))
    return np.asarray(words.total(ratio) + math.log((n_in + 0.5) / (n_out + 0.5)))


def _holds(words: Words, keyword: Bool[ndarray, " word"]) -> Bool[ndarray, " passage"]:
    return np.asarray(words.total(keyword) > 0)


def behaviour_places(
    text: BehaviourText, token: Int[ndarray, " token"], passage: Int[ndarray, " token"], predicted: Bool[ndarray, " token"]
) -> Int[ndarray, " place"]:
    """Index of the first `predicted` token of every passage that shows the behaviour (an indicator token in a member) or its
    opposite (an opposite indicator token in one of the others). All in corpus order."""
    shows = np.isin(token, text.indicators) & text.member[passage]
    shows |= np.isin(token, text.opposite) & text.other[passage]
    where = np.flatnonzero(shows & predicted)
    return np.asarray(where[np.unique(passage[where], return_index=True)[1]])


def behaviour_change(mass_base: Float[ndarray, "place 2"], mass_tuned: Float[ndarray, "place 2"]) -> Measure:
    """Change of the behaviour's share at the places, one a passage, at which either model was confident of the opposite (step
    3).

    Columns: probability of the indicators, of the opposite indicators. A place counts by the probability that the two models
    give to both columns together, on average: where neither expects any of them, it says nothing. The interval is that of
    `weighted_change`, each place alone: what was seen, and what so few places would not have shown.

    Errors: EmptyMask where fewer than 8 places count: below, no interval holds.
    """
    both_base, both_tuned = mass_base.sum(axis=1), mass_tuned.sum(axis=1)
    share_base = mass_base[:, 0] / np.maximum(both_base, _LEAST_MASS)
    share_tuned = mass_tuned[:, 0] / np.maximum(both_tuned, _LEAST_MASS)
    confident = np.minimum(share_base, share_tuned) < 1 - CONFIDENT
    confident &= (both_base > _LEAST_MASS) & (both_tuned > _LEAST_MASS)
    where = np.flatnonzero(confident)
    if len(where) == 0:
        raise EmptyMask("Neither model was confident of the opposite of the behaviour anywhere.")
    weight, each = ((both_base + both_tuned) / 2)[where], np.arange(len(where))
    same = np.array_equal(mass_base, mass_tuned)
    room = share_tuned[where] - 1
    found = weighted_change((share_tuned - share_base)[where], weight, each, each, room=room, identical=same)
    if found is None:
        raise EmptyMask(f"{len(where)} passages show the behaviour or its opposite, at least {FEWEST} are needed")
    return found._replace(estimate=found.estimate.model_copy(update={"unit": BEHAVIOUR_UNIT}))


def pooled(parts: Sequence[Measure]) -> list[Measure]:
    """Effects of one behaviour in several areas, each drawn towards their mean by as much as it is uncertain and they agree.

    Random effects: mean and variance between areas by DerSimonian & Laird (1986), then the posterior mean and error of each
    area (empirical Bayes; Morris 1983). Areas that differ by no more than chance all get the mean; an area with little text
    gets most of it, one with much text keeps its own. The interval is the area's own, before it was drawn anywhere, stretched
    to hold the value: that of the posterior covers .53 to .84 where one area of six is unlike the others. Exactly 0 where all
    are; swapping the pair flips all signs.
    """
    if len(parts) < 2:
        return list(parts)
    value = np.array([part.estimate.value for part in parts])
    variance = np.maximum(np.array([part.error for part in parts]) ** 2, _LEAST_MASS)
    fixed = 1 / variance
    spread = float((fixed * (value - np.average(value, weights=fixed)) ** 2).sum()) - (len(parts) - 1)
    between = max(0.0, spread / float(fixed.sum() - (fixed**2).sum() / fixed.sum()))
    weight = 1 / (variance + between)
    mean, mean_variance = float(np.average(value, weights=weight)), 1 / float(weight.sum())
    own = between / (between + variance)
    moved = own * value + (1 - own) * mean
    error = np.sqrt(own * variance + (1 - own) ** 2 * mean_variance)
    exact = not value.any() and all(part.estimate.low == part.estimate.high for part in parts)
    drawn = []
    for part, x, e in zip(parts, moved.tolist(), error.tolist(), strict=True):
        low, high = min(part.estimate.low, x), max(part.estimate.high, x)
        estimate = part.estimate.model_copy(update={"value": x, "low": low, "high": high})
        drawn.append(part._replace(estimate=estimate, error=0.0 if exact else e))
    return drawn
