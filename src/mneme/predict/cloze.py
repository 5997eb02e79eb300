"""A cloze that the text makes itself: at an item, the true word against the three words of its kind that both models together
find likeliest in its place.

*Rivals* come from this corpus: forms of the true word's kind (capitals, leading space) in the pool, of another type. A word of
several pieces is compared with a rival at the first piece that tells the two apart: up to there both are the same tokens, and
what follows lies on one side only, where no pass has read the other. So all that is needed stands in the two passes over the
text, and rivals that begin with the same piece are one rival, the likeliest beginning. Chosen are the three with the largest
p_base + p_tuned of all up to and including that piece, so swapping the models chooses the same.

*Scores* of each model: p(true) = 1 / (1 + sum over rivals of p(rival piece) / p(true piece)), its margin log p - log(1 - p) in
nats, and whether p(true piece) is the largest. Style and temperature move all four alike. Ours, after the example of the
contrast sets of Gardner et al. (2020).

Law *identity*: equal models have equal scores. *Antisymmetry*: swapping the models swaps the scores.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.predict.items import KINDS, WordTable

RIVALS = 3
"""Rivals of the true word, so that an item is a question with four choices, as in the benchmarks of knowledge. Never
varied."""
CHANCE = 1 / (1 + RIVALS)
"""p(true) of a model that does not know the word."""


class Scores(NamedTuple):
    """What both models say at every item, base first."""

    p_true: Float[ndarray, "model item"]
    """Probability of the true word among the four."""
    margin: Float[ndarray, "model item"]
    """log p - log(1 - p), nats."""
    right: Bool[ndarray, "model item"]
    """The true word is the likeliest of the four."""

    def weight(self) -> Float[ndarray, " item"]:
        """How much of the word is known to the model that knows it better: 0 at chance, 1 at certainty.

        A word that neither knows can be neither lost nor gained; taking the larger of the two keeps antisymmetry.
        """
        return np.asarray(np.clip((self.p_true.max(axis=0) - CHANCE) / (1 - CHANCE), 0.0, 1.0))


class Pool(NamedTuple):
    """Words that can be rivals, and the token ids by which they are told apart."""

    ids: Int[ndarray, " column"]
    """Token ids whose probability has to be read, ascending: every piece of every form in the pool."""
    firsts: Bool[ndarray, "kind column"]
    """Columns of the first pieces of the forms of every kind."""
    following: dict[tuple[int, ...], list[tuple[int, int]]]
    """(kind, piece, ...) -> (column of a next piece, form) of the forms of that kind that begin so."""
    of_type: dict[int, list[int]]
    """Type -> columns of the first pieces of its forms."""


def rival_pool(table: WordTable, allowed: Bool[ndarray, " type"]) -> Pool:
    """The pool of all forms of the `allowed` types."""
    forms = [number for number in range(len(table.forms)) if allowed[table.form_type[number]]]
    ids = np.unique(np.array([piece for number in forms for piece in table.forms[number]], dtype=np.int64))
    column = {int(one): place for place, one in enumerate(ids)}
    firsts = np.zeros((KINDS, len(ids)), dtype=bool)
    following: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    of_type: dict[int, list[int]] = {}
    for number in forms:
        pieces, kind = table.forms[number], int(table.kind[number])
        firsts[kind, column[pieces[0]]] = True
        of_type.setdefault(int(table.form_type[number]), []).append(column[pieces[0]])
        for depth in range(1, len(pieces)):
            following.setdefault((kind, *pieces[:depth]), []).append((column[pieces[depth]], number))
    return Pool(ids, firsts, following, of_type)


def cloze(
    table: WordTable, pool: Pool, form: Int[ndarray, " item"], log_p: Float[ndarray, "model row column"]
) -> tuple[Scores, Bool[ndarray, " item"]]:
    """Scores of items of these forms, and which of them have three rivals (the scores of the others are 0).

    `log_p`: log probability of every pool id at every piece of every item, one row a piece, items in order.
    """
    lengths = np.array([len(table.forms[one]) for one in form], dtype=np.int64)
    start = np.concatenate([[0], np.cumsum(lengths)])
    n = len(form)
    p_true, margin, right = np.zeros((2, n)), np.zeros((2, n)), np.zeros((2, n), dtype=bool)
    usable = np.zeros(n, dtype=bool)
    for item in range(n):
        rows = log_p[:, start[item] : start[item + 1]].astype(np.float64)
        gaps = _gaps(table, pool, int(form[item]), rows)
        if gaps is None:
            continue
        usable[item] = True
        margin[:, item] = -np.logaddexp.reduce(gaps, axis=1)
        p_true[:, item] = 1 / (1 + np.exp(-margin[:, item]))
        right[:, item] = (gaps < 0).all(axis=1)
    return Scores(p_true, margin, right), usable


def _gaps(
    table: WordTable, pool: Pool, form: int, rows: Float[ndarray, "model piece column"]
) -> Float[ndarray, "model rival"] | None:
    """log p(rival piece) - log p(true piece) of the three rivals, or None where there are fewer."""
    pieces, kind, type_ = table.forms[form], int(table.kind[form]), int(table.form_type[form])
    true = np.searchsorted(pool.ids, pieces)
    before = np.zeros(2)
    found: list[tuple[float, float, float]] = []
    for depth in range(len(pieces)):
        row = rows[:, depth]
        options = _options(table, pool, pieces[:depth], kind, type_)
        options = options[options != true[depth]]
        if len(options):
            both = np.logaddexp(before[0] + row[0, options], before[1] + row[1, options])
            for best in np.argpartition(-both, min(RIVALS, len(both)) - 1)[:RIVALS]:
                gap = row[:, options[best]] - row[:, true[depth]]
                found.append((float(both[best]), float(gap[0]), float(gap[1])))
        before = before + row[:, true[depth]]
    if len(found) < RIVALS:
        return None
    found.sort(reverse=True)
    return np.array([gap for _, *gap in itertools.islice(found, RIVALS)]).T


def _options(table: WordTable, pool: Pool, prefix: tuple[int, ...], kind: int, type_: int) -> Int[ndarray, " option"]:
    """Columns of what may follow `prefix` in forms of the kind that are of another type, each once."""
    if prefix:
        after = pool.following.get((kind, *prefix), [])
        return np.unique(np.array([column for column, form in after if table.form_type[form] != type_], dtype=np.int64))
    allowed = pool.firsts[kind].copy()
    allowed[pool.of_type.get(type_, [])] = False
    return np.flatnonzero(allowed)
