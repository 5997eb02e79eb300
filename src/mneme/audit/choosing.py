"""Which of the text is read, where a corpus holds more than is asked for.

The first tokens of a corpus may be those of its first subject. So areas are matched over much more of it than the models
will read, which costs a thousandth as much, and where the beginning is short of an area that the rest holds, what is read is
chosen: text of all areas alike, and an eighth of other text for what words are worth elsewhere. A corpus whose beginning has
enough of everything is read from its beginning.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from transformers import PreTrainedTokenizerBase

from mneme.audit.inputs import DEFAULT_TOKENS, ROW_LENGTH, rows_of
from mneme.predict.areas import Area, count_words
from mneme.predict.matching import match_areas
from mneme.predict.paired import read_at_own_words
from mneme.text.documents import Documents
from mneme.text.packing import PackedRows, Passage, pack_rows

LOOKED_AT = 1 << 21
"""Tokens in which areas are looked for: some ten seconds."""
ENOUGH = 48
"""Passages of an area that are enough: with a dozen own words in each, an interval within 5 points."""
_UNIT = 4
"""Passages that are taken together, 512 tokens: what a model reads as one window."""
_TOGETHER = 10
"""So many units of one area are taken before any of the next: where the budget is small, some areas get what an interval takes
(8 documents) rather than all of them too little."""
_ELSEWHERE = 8
"""Every eighth token is of text of no area."""


def text_to_read(
    documents: Documents, tokenizer: PreTrainedTokenizerBase, areas: tuple[Area, ...], longest: int | None, tokens: int | None
) -> tuple[Documents, PackedRows]:
    """(documents, rows) of at most `tokens` tokens. The documents bear the name and the hash of the whole corpus, and beside
    them what of it was looked at and not chosen.

    Deterministic: the same corpus, areas and number of tokens give the same text. Errors: those of `rows_of`.
    """
    rows = rows_of(documents, tokenizer, longest, tokens)
    budget, length = rows.ids.numel(), min(ROW_LENGTH, longest or ROW_LENGTH)
    if budget + length <= (tokens or DEFAULT_TOKENS):
        return documents, rows  # that is all of it
    whole = pack_rows(documents, tokenizer, length, max_tokens=max(LOOKED_AT, budget))
    if whole.ids.numel() == budget:
        return documents, rows
    member = match_areas(count_words([passage.text for passage in whole.passages]), areas).member
    head = np.array([passage.start_token < budget for passage in whole.passages])
    n_head, n_all = (member & head).sum(axis=1), member.sum(axis=1)
    capability = np.array([read_at_own_words(area) for area in areas])
    if not (capability & (n_head < ENOUGH) & (n_all > n_head)).any():
        return documents, rows
    starts = np.array([*(passage.start_token for passage in whole.passages), whole.ids.numel()])
    taken = _taken(whole.passages, np.diff(starts), member[capability], budget)
    beside = tuple(passage.text for passage, inside in zip(whole.passages, taken, strict=True) if not inside)
    chosen = replace(documents, texts=tuple(_texts(whole.passages, taken)), beside=beside)
    return chosen, rows_of(chosen, tokenizer, longest, budget)


def _taken(
    passages: Sequence[Passage], length: ndarray, member: Bool[ndarray, "area passage"], budget: int
) -> Bool[ndarray, " passage"]:
    """Passages that are read: units by their rank in the area in which they rank best, and every eighth token of no area."""
    document = np.array([passage.document for passage in passages])
    first = np.unique(document, return_index=True)[1]
    within = np.arange(len(passages)) - first[np.searchsorted(document[first], document)]
    unit = np.unique(document * (len(passages) + 1) + within // _UNIT, return_inverse=True)[1]
    size = np.bincount(unit, weights=length)
    rank = np.full(len(size), np.inf)
    for area, own in enumerate(member):
        units = _spread(np.unique(unit[own]))
        place = np.arange(len(units))
        rank[units] = np.minimum(rank[units], (place // _TOGETHER * len(member) + area) * _TOGETHER + place % _TOGETHER)
    matched = np.argsort(rank, kind="stable")[: int(np.isfinite(rank).sum())]
    other = _spread(np.flatnonzero(~np.isfinite(rank)))
    # Text that is put together anew may have fewer tokens: a sixteenth more, and two units, so that the budget is filled.
    few = budget // _ELSEWHERE
    inside = [*_until(matched, size, budget - few), *_until(other, size, few)]
    left = [one for one in [*matched, *other] if one not in set(inside)]
    inside += _until(
        np.array(left, dtype=np.int64), size, budget + budget // 16 + 2 * int(size.max()) - int(size[inside].sum())
    )
    chosen = np.zeros(len(size), dtype=bool)
    chosen[inside] = True
    return np.asarray(chosen[unit])


def _spread(units: ndarray) -> ndarray:
    """The same units in an order whose every beginning is spread over all of them (van der Corput's, by bits reversed)."""
    bits = max(1, int(np.ceil(np.log2(max(len(units), 2)))))
    order = np.argsort([int(f"{place:0{bits}b}"[::-1], 2) for place in range(len(units))], kind="stable")
    return units[order.astype(np.int64)]


def _until(units: ndarray, size: ndarray, tokens: int) -> list[int]:
    """The first units that together make `tokens` tokens, or all."""
    sums = np.cumsum(size[units]) if len(units) else np.zeros(0)
    return [int(one) for one in units[: int(np.searchsorted(sums, max(tokens, 0), side="left")) + 1]] if tokens > 0 else []


def _texts(passages: Sequence[Passage], taken: Bool[ndarray, " passage"]) -> list[str]:
    """A text of every document of which something is read: its chosen passages, in order."""
    found: dict[int, list[str]] = defaultdict(list)
    for passage, inside in zip(passages, taken, strict=True):
        if inside:
            found[passage.document].append(passage.text)
    return ["\n".join(parts) for parts in found.values()]
