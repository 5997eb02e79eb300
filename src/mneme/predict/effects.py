"""What the change did to the text of an area: knowledge lost or gained, and manner that became likelier than its like.

*Knowledge* is read at the tokens that at least one of the two models was sure of and that say something: p(next token) > 0.9
under base or tuned, a type outside the most frequent half of the corpus, not yet seen in its passage (a repeated word can be
copied without being known). Taking the union of what either model was sure of makes the measure antisymmetric: selecting on
the base alone would show a loss for any two models (regression to the mean). The effect is the change in accuracy there
(first choice = true token): -0.05 is 5 points lost. Taken off it is what happened to the same token types in the areas that
changed least, because words of form ("about", "should") drift alike wherever they stand and are nobody's knowledge.

*Manner* is a contrast of likelihoods: how much likelier the tokens that mark it became than the tokens that mark its nearest
neighbours, which are alike in every other word.

Law *identity*: exactly 0 where the models are equal. *Antisymmetry*: swapping the pair flips the sign.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.errors import EmptyMask
from mneme.predict.areas import Words, presence_log_ratio
from mneme.results import Estimate
from mneme.stats import ratio_of_sums

SURE = 0.9
KNOWLEDGE_UNIT = "accuracy on known tokens"
MANNER_UNIT = "nats per telling token"
_DRIFT_PRIOR = 5.0
_NEIGHBOURS = 4
_MAX_MEMBERS = 600
_MAX_WORDS = 2000


class TokenTable(NamedTuple):
    """Every predicted token of the corpus, flat, in corpus order."""

    passage: Int[ndarray, " token"]
    """Which passage the predicted token stands in."""
    token: Int[ndarray, " token"]
    logp_base: Float[ndarray, " token"]
    logp_tuned: Float[ndarray, " token"]
    right_base: Bool[ndarray, " token"]
    """The model's first choice is this token."""
    right_tuned: Bool[ndarray, " token"]
    content: Bool[ndarray, " token"]
    """A type outside the most frequent half of the corpus, not yet seen in its passage (`content_mask`)."""
    n_passages: int

    def known(self) -> Bool[ndarray, " token"]:
        """Content tokens that base or tuned was sure of."""
        return np.asarray(self.content & (np.maximum(self.logp_base, self.logp_tuned) > np.log(SURE)))

    def per_passage(self, values: Float[ndarray, " token"]) -> Float[ndarray, " passage"]:
        """Sum of `values` over the tokens of every passage."""
        return np.bincount(self.passage, weights=values, minlength=self.n_passages)


def content_mask(token: Int[ndarray, " token"], passage: Int[ndarray, " token"]) -> Bool[ndarray, " token"]:
    """True at tokens that say something: the type is not among the most frequent ones that make up half of all tokens, and
    it occurs here for the first time in its passage. `passage` must be sorted within itself (corpus order)."""
    counts = np.bincount(token)
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    frequent = np.zeros(len(counts), dtype=bool)
    frequent[order[before < 0.5 * len(token)]] = True
    pairs = passage.astype(np.int64) * len(counts) + token
    first = np.zeros(len(token), dtype=bool)
    first[np.unique(pairs, return_index=True)[1]] = True
    return np.asarray(first & ~frequent[token])


def knowledge_change(
    table: TokenTable, member: Bool[ndarray, " passage"], reference: Bool[ndarray, " passage"], *, seed: int
) -> Estimate:
    """Change in accuracy on known tokens of the member passages, beyond what happened to the same token types in `reference`
    passages that are no members (`type_drift`; see the module's head).

    Errors: EmptyMask when no member passage holds a known token.
    """
    known = table.known()
    inside = member[table.passage]
    change = table.right_tuned.astype(np.float64) - table.right_base
    drift = type_drift(table.token, change, known & ~inside & reference[table.passage])
    numerator = table.per_passage(np.where(known & inside, change - drift[table.token], 0.0))
    denominator = table.per_passage((known & inside).astype(np.float64))
    return ratio_of_sums(numerator[member], denominator[member], KNOWLEDGE_UNIT, seed=seed)


def type_drift(
    token: Int[ndarray, " token"], change: Float[ndarray, " token"], counted: Bool[ndarray, " token"]
) -> Float[ndarray, " type"]:
    """Mean `change` of every token type over the `counted` tokens, shrunk towards 0 as if 5 more had not changed.

    A type that does not occur there has no drift and keeps its whole change.
    """
    size = int(token.max(initial=0)) + 1
    total = np.bincount(token[counted], weights=change[counted], minlength=size)
    count = np.bincount(token[counted], minlength=size)
    return np.asarray(total / (count + _DRIFT_PRIOR))


def reference_passages(table: TokenTable, member: Bool[ndarray, "area passage"]) -> Bool[ndarray, " passage"]:
    """Passages that belong to none of the more changed half of the areas: those whose raw change in accuracy on known tokens
    is, in size, above the median area's. Where a strong effect lies next to a weak one on shared words, pooling all other
    text as the reference would take the weak effect away as drift. All passages where there are fewer than 3 areas."""
    known = table.known()
    change = np.where(known, table.right_tuned.astype(np.float64) - table.right_base, 0.0)
    above, below = member @ table.per_passage(change), member @ table.per_passage(known.astype(np.float64))
    used = below > 0
    if used.sum() < 3:
        return np.ones(table.n_passages, dtype=bool)
    raw = np.abs(above / np.maximum(below, 1.0))
    changed = used & (raw > np.median(raw[used]))
    return np.asarray(~member[changed].any(axis=0))


def manner_change(
    table: TokenTable,
    words: Words,
    member: Bool[ndarray, " passage"],
    telling: Bool[ndarray, " word"],
    allowed: Bool[ndarray, " passage"],
    *,
    seed: int,
) -> Estimate:
    """How much likelier the tokens that make the manner became than the tokens that stand there instead, nats per token.

    Each member (at most 600, evenly spaced) is paired with its 4 nearest `allowed` non-members by cosine of inverse-document-
    frequency weighted word presence, the `telling` words (those that make it a member) left out, so that the two differ in
    manner and little else. Token types at least e times as frequent among members as among those neighbours are the marks of
    the manner, those e times rarer the marks of its opposite. The effect is, by member, the mean change in log-likelihood of
    its marks minus that of the opposite marks in its neighbours. A model that turns to the manner shows it on both sides: it
    expects the marks, and no longer the opposite ones.

    Errors: EmptyMask when there is no member, no allowed non-member, or no mark on either side.
    """
    inside = np.flatnonzero(member)
    if len(inside) > _MAX_MEMBERS:
        inside = inside[np.linspace(0, len(inside) - 1, _MAX_MEMBERS).astype(int)]
    outside = np.flatnonzero(allowed & ~member)
    if len(inside) == 0 or len(outside) == 0:
        raise EmptyMask("There is no text of this manner, or no other text to compare it with.")
    nearest = _nearest(_features(words, telling), inside, outside)
    neighbour = np.zeros(table.n_passages, dtype=bool)
    neighbour[nearest] = True
    marks, opposite = _marks(table, member, neighbour)
    change = table.logp_tuned - table.logp_base
    gain, loss = np.where(marks[table.token], change, 0.0), np.where(opposite[table.token], change, 0.0)
    with_marks = table.per_passage(marks[table.token].astype(np.float64))
    with_opposite = table.per_passage(opposite[table.token].astype(np.float64))
    own, others = with_marks[inside], with_opposite[nearest].sum(axis=1)
    used = (own > 0) & (others > 0)
    if not used.any():
        raise EmptyMask("Nothing but chance tells the text of this manner from its nearest other text: no token marks either.")
    contrast = table.per_passage(gain)[inside][used] / own[used]
    contrast -= table.per_passage(loss)[nearest].sum(axis=1)[used] / others[used]
    return ratio_of_sums(contrast, np.ones(len(contrast)), MANNER_UNIT, seed=seed)


def _nearest(
    features: Float[ndarray, "passage feature"], inside: Int[ndarray, " member"], outside: Int[ndarray, " other"]
) -> Int[ndarray, "member neighbour"]:
    """The 4 passages of `outside` that are most like each of `inside`."""
    count = min(_NEIGHBOURS, len(outside))
    found = np.empty((len(inside), count), dtype=np.int64)
    for start in range(0, len(inside), 128):
        likeness = features[inside[start : start + 128]] @ features[outside].T
        found[start : start + 128] = outside[np.argpartition(-likeness, count - 1, axis=1)[:, :count]]
    return found


def _marks(
    table: TokenTable, member: Bool[ndarray, " passage"], neighbour: Bool[ndarray, " passage"]
) -> tuple[Bool[ndarray, " type"], Bool[ndarray, " type"]]:
    """Token types that mark the members against their neighbours, and the other way round: present in at least 3 passages of
    the one kind and at least e times as often there (shares of passages, 1/2 added to each count)."""
    size = int(table.token.max(initial=0)) + 1
    present = np.unique(table.passage.astype(np.int64) * size + table.token)
    passage, token = present // size, present % size
    here = np.bincount(token[member[passage]], minlength=size).astype(np.float64)
    there = np.bincount(token[neighbour[passage]], minlength=size).astype(np.float64)
    ratio = presence_log_ratio(here, int(member.sum()), there, int(neighbour.sum()))
    return np.asarray((ratio > 1.0) & (here >= 3)), np.asarray((ratio < -1.0) & (there >= 3))


def _features(words: Words, telling: Bool[ndarray, " word"]) -> Float[ndarray, "passage feature"]:
    """Unit rows of idf-weighted presence over the 2,000 most frequent single words that are not `telling`."""
    frequency = words.frequency()
    phrase = np.array([" " in word for word in words.vocabulary], dtype=bool)
    usable = np.where(telling | phrase, 0.0, frequency)
    kept = np.argsort(-usable, kind="stable")[:_MAX_WORDS]
    kept = kept[usable[kept] > 0]
    column = np.full(len(frequency), -1)
    column[kept] = np.arange(len(kept))
    matrix = np.zeros((words.n_passages, max(len(kept), 1)), dtype=np.float32)
    inside = column[words.word] >= 0
    weight = np.log(words.n_passages / np.maximum(frequency, 1.0))
    matrix[words.passage[inside], column[words.word[inside]]] = weight[words.word[inside]]
    return np.asarray(matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9))
