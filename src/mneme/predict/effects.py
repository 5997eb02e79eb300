"""What the change did to the knowledge that an area's text asks for. Behaviours are read in `mneme.predict.behaviour`.

*Knowledge* is read at the tokens that at least one of the two models was confident of and that say something: p(next token) >
0.9 under base or tuned, a type outside the most frequent half of the corpus, not yet seen in its passage (a repeated word can
be copied without being known). Taking the union of what either model was confident of makes the measure antisymmetric:
selecting on the base alone would show a loss for any two models (regression to the mean). The effect is the change in accuracy
there (first choice = true token): -0.05 is 5 points lost. Taken off it is what happened to the same token types in the areas
that changed least, because words of form ("about", "should") drift alike wherever they stand and carry no knowledge.

Law *identity*: exactly 0 where the models are equal. *Antisymmetry*: swapping the pair flips the sign.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.errors import EmptyMask
from mneme.predict.knowledge import weighted_change
from mneme.predict.verdicts import FEWEST, Measure

CONFIDENT = 0.9
"""Probability from which a model is confident of a token. At 1/2 the first choice flips for nothing: 2.2 points on an honest
continuation, 0 at 0.9 (docs/decisions/0002)."""
KNOWLEDGE_UNIT = "accuracy on known tokens"
_DRIFT_PRIOR = 5.0
"""Tokens without change that the drift of a type is shrunk by: less than five say little. A round number that was never
varied."""
_BLOCK_TOKENS = 1 << 18
"""Tokens that are sorted at once: 2 MB of keys, several times that while they are sorted. A round number that was never
varied."""
_FREQUENT = 0.5
"""Share of all tokens that the types which say nothing make up: the most frequent half is words of form (docs/log.md, the
first audit). Never varied."""
_FEW_AREAS = 3
"""Areas below which there is no more changed half of them: all text is then the reference."""


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
        """Content tokens that base or tuned was confident of."""
        return np.asarray(self.content & (np.maximum(self.logp_base, self.logp_tuned) > np.log(CONFIDENT)))

    def nll_change(self) -> Float[ndarray, " token"]:
        """log p_base - log p_tuned, nats, in double precision."""
        return np.asarray(self.logp_base.astype(np.float64) - self.logp_tuned)

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
    frequent[order[before < _FREQUENT * len(token)]] = True
    first = np.zeros(len(token), dtype=bool)
    # In blocks of whole passages: sorting takes several times the memory of what is sorted.
    edges = np.searchsorted(passage, passage[_BLOCK_TOKENS::_BLOCK_TOKENS])
    for start, stop in itertools.pairwise([0, *edges.tolist(), len(token)]):
        pairs = passage[start:stop].astype(np.int64) * len(counts) + token[start:stop]
        first[start + np.unique(pairs, return_index=True)[1]] = True
    return np.asarray(first & ~frequent[token])


def knowledge_change(table: TokenTable, member: Bool[ndarray, " passage"], reference: Bool[ndarray, " passage"]) -> Measure:
    """Change in accuracy on known tokens of the member passages, beyond what happened to the same token types in `reference`
    passages that are no members (`type_drift`; see the module's head). Clusters are passages and token types, both at once
    (`weighted_change`).

    Errors: EmptyMask when fewer than 8 member passages, or types, hold a known token.
    """
    known = table.known()
    inside = member[table.passage]
    change = table.right_tuned.astype(np.float64) - table.right_base
    drift = type_drift(table.token, change, known & ~inside & reference[table.passage])
    where = np.flatnonzero(known & inside)
    if len(where) == 0:
        raise EmptyMask("A mean over no tokens has no value: expected at least one passage with a known token.")
    token, passage = table.token[where], table.passage[where]
    same = np.array_equal(table.logp_base, table.logp_tuned)
    found = weighted_change(change[where] - drift[token], np.ones(len(where)), passage, token, identical=same)
    if found is None:
        raise EmptyMask(f"Known tokens of too few passages or types for an interval: at least {FEWEST} of either are needed.")
    return found._replace(estimate=found.estimate.model_copy(update={"unit": KNOWLEDGE_UNIT}))


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
    if used.sum() < _FEW_AREAS:
        return np.ones(table.n_passages, dtype=bool)
    raw = np.abs(above / np.maximum(below, 1.0))
    changed = used & (raw > np.median(raw[used]))
    return np.asarray(~member[changed].any(axis=0))
