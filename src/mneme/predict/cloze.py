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

import math
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
_LEAST = -1e300
"""Stands for the logarithm of a probability of 0: a rival all the same, unlike -inf, which is none."""
_LOG_2 = math.log(2.0)


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
    both, gaps = _first_rivals(table, pool, form, log_p[:, start[:-1]])
    for item in np.flatnonzero(lengths > 1):
        rows = log_p[:, start[item] : start[item + 1]].astype(np.float64)
        later = _later_rivals(table, pool, int(form[item]), rows)
        if later:
            found = sorted([*zip(both[item], *gaps[:, item], strict=True), *later], reverse=True)[:RIVALS]
            both[item], gaps[:, item] = [one for one, *_ in found], np.array([gap for _, *gap in found]).T
    usable = both[:, -1] > -np.inf
    margin = np.where(usable, -np.logaddexp.reduce(gaps, axis=2), 0.0)
    p_true = np.where(usable, 1 / (1 + np.exp(-margin)), 0.0)
    return Scores(p_true, margin, usable & (gaps < 0).all(axis=2)), usable


def _first_rivals(
    table: WordTable, pool: Pool, form: Int[ndarray, " item"], log_p: Float[ndarray, "model item column"]
) -> tuple[Float[ndarray, "item rival"], Float[ndarray, "model item rival"]]:
    """Of the rivals that part at the first piece the likeliest three, in order: log(p_base + p_tuned), and log p(rival piece)
    - log p(true piece) of both models; -inf and 0 where there are fewer. All items of a kind at once."""
    both, gaps = np.full((len(form), RIVALS), -np.inf), np.zeros((2, len(form), RIVALS))
    kinds = table.kind[form]
    for kind in np.unique(kinds):
        own, columns = np.flatnonzero(kinds == kind), np.flatnonzero(pool.firsts[kind])
        width = min(RIVALS, len(columns))
        if not width:
            continue
        true = np.searchsorted(pool.ids, [table.forms[one][0] for one in form[own]])
        said = log_p[:, own[:, None], columns].astype(np.float64)
        larger = np.maximum(said.max(axis=0), _LEAST)
        place = np.full(len(pool.ids), -1)
        place[columns] = np.arange(len(columns))
        for row, (one, column) in enumerate(zip(form[own], true, strict=True)):
            hidden = place[[column, *pool.of_type.get(int(table.form_type[one]), [])]]
            larger[row, hidden[hidden >= 0]] = -np.inf
        # The sum of two probabilities is at most twice the larger: what cannot be among the three is not added up.
        least = np.partition(larger, -width, axis=1)[:, -width] - _LOG_2
        near = np.nonzero((larger >= least[:, None]) & (larger > -np.inf))
        sums = np.full(larger.shape, -np.inf)
        sums[near] = np.maximum(np.logaddexp(said[0][near], said[1][near]), _LEAST)
        best = np.argpartition(-sums, width - 1, axis=1)[:, :width]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(sums, best, 1), axis=1, kind="stable"), 1)
        both[own, :width] = np.take_along_axis(sums, best, 1)
        gaps[:, own, :width] = np.take_along_axis(said, best[None], 2) - log_p[:, own, true][..., None].astype(np.float64)
    gaps[:, both == -np.inf] = 0.0
    return both, gaps


def _later_rivals(
    table: WordTable, pool: Pool, form: int, rows: Float[ndarray, "model piece column"]
) -> list[tuple[float, float, float]]:
    """Of the rivals that part at each later piece the likeliest three: log(p_base + p_tuned) up to and including that piece,
    and both models' log p(rival piece) - log p(true piece)."""
    pieces, kind, type_ = table.forms[form], int(table.kind[form]), int(table.form_type[form])
    true = np.searchsorted(pool.ids, pieces)
    before = rows[:, 0, true[0]]
    found: list[tuple[float, float, float]] = []
    for depth in range(1, len(pieces)):
        row = rows[:, depth]
        options = _options(table, pool, pieces[:depth], kind, type_)
        options = options[options != true[depth]]
        if len(options):
            both = np.maximum(np.logaddexp(before[0] + row[0, options], before[1] + row[1, options]), _LEAST)
            for best in np.argpartition(-both, min(RIVALS, len(both)) - 1)[:RIVALS]:
                gap = row[:, options[best]] - row[:, true[depth]]
                found.append((float(both[best]), float(gap[0]), float(gap[1])))
        before = before + row[:, true[depth]]
    return found


def _options(table: WordTable, pool: Pool, prefix: tuple[int, ...], kind: int, type_: int) -> Int[ndarray, " option"]:
    """Columns of what may follow `prefix` in forms of the kind that are of another type, each once."""
    after = pool.following.get((kind, *prefix), [])
    return np.unique(np.array([column for column, form in after if table.form_type[form] != type_], dtype=np.int64))
