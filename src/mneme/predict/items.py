"""Where an area's knowledge is read: at the first mention, once a document, of the words that are the area's own.

A word is a maximal run of letters and digits with all the pieces that a tokenizer makes of it, whatever the tokenizer; its
type is the word without capitals and plural ending. A type is an area's own where the area's text mentions it at least e
times as often as all other text does, with each count drawn towards equal rates as if five more mentions had been spread over
all the text alike: a word met once or twice then needs an area that is a small part of the text.

Function words belong to no area, because every area uses them. Words of a behaviour can be an area's own (advice about it has
words that no other text has). No list excuses them; they count as far as a model is confident of them (`cloze.Scores.weight`),
which it seldom is of a free choice, and none may carry an area alone (`verdicts`). Ours; why own words: docs/decisions/0005.
"""

import bisect
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.predict.areas import Words, stem

OWN_RATIO = math.e
"""A word is an area's own where it is so many times as frequent there as elsewhere: one nat. Never varied beside `_PRIOR`."""
_PRIOR = 5.0
"""Mentions that count as spread alike over all the text: as many as `predict/effects.py` shrinks by. A binomial test at 5 %,
tried first, left 18 to 50 items an area on 12 paragraphs of SmolLM2 (docs/log.md, the audit reads own words)."""
_AT_HOME = 0.6
"""A word that another area mentions more than 1 / 0.6 times as often is that area's: of two areas of which one borrows text of
the other, the borrower would otherwise be charged for what happened to the lender. Settled on four pairs of world a
(docs/decisions/0005)."""
MOST_PIECES = 8
"""A run of more pieces is no word: a link, a formula, or a script that sets no spaces. A round number that was never
varied."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
KINDS = 6
"""Kinds of forms: small, Capital or other letters, with or without a sign of its own before the word (`_kind_of`)."""
_FREQUENT = 0.5
"""Share of all first mentions that the types which say nothing make up, as for tokens (`predict/effects.py`)."""
_SHORTEST = 2
"""Characters of the shortest word that is read: a single one is an initial, a unit or the ending of a contraction."""

Spans = Sequence[tuple[int, int]]


class TokenisedText(NamedTuple):
    """One document as a model reads it."""

    ids: Sequence[int]
    text: str
    spans: Spans
    """Characters [start, end) of every token; (x, x) for a token that stands for no text."""
    counted: Spans | None = None
    """Characters of the turns that count (of a chat: the assistant's); None = the whole text."""


class WordTable(NamedTuple):
    """Every word of some documents, flat, in their order."""

    document: Int[ndarray, " word"]
    start: Int[ndarray, " word"]
    """Index of the word's first token in its document."""
    form: Int[ndarray, " word"]
    """Index into `forms`."""
    type: Int[ndarray, " word"]
    """Index into `types`."""
    first: Bool[ndarray, " word"]
    """The first mention of its type in its document, whoever mentions it."""
    counted: Bool[ndarray, " word"]
    """It stands in text that counts, and is a word that a model predicts: not the first token of all."""
    forms: tuple[tuple[int, ...], ...]
    """Token ids of every form that occurs."""
    form_type: Int[ndarray, " form"]
    kind: Int[ndarray, " form"]
    """Forms of one kind can stand for one another: `_kind_of`."""
    types: tuple[str, ...]

    def mentions(self, inside: Bool[ndarray, " word"]) -> Float[ndarray, " type"]:
        """In how many documents each type is mentioned for the first time among the words `inside`."""
        return np.bincount(self.type[self.first & inside], minlength=len(self.types)).astype(np.float64)


class Items(NamedTuple):
    """Words that are read, in corpus order, each once, whatever number of areas it is own to."""

    word: Int[ndarray, " item"]
    """Index into the word table."""
    own: Bool[ndarray, "area item"]
    """The item is an own word of the area, in text of the area."""


def word_table(documents: Sequence[TokenisedText], leading: Callable[[int], bool]) -> WordTable:
    """Find the words of all documents. `leading(id)`: the token opens a word by a sign of its own (a leading space)."""
    forms: dict[tuple[int, ...], int] = {}
    types: dict[str, int] = {}
    form_type: list[int] = []
    kinds: list[int] = []
    rows: list[tuple[int, int, int, int, bool, bool]] = []
    for number, document in enumerate(documents):
        seen: set[int] = set()
        for a, b, start, end in _words_of(document):
            surface = document.text[a:b]
            type_ = types.setdefault(stem(surface.replace("’", "'")), len(types))
            first = type_ not in seen
            seen.add(type_)
            if end - start > MOST_PIECES:
                continue
            pieces = tuple(document.ids[start:end])
            form = forms.setdefault(pieces, len(forms))
            if form == len(form_type):
                form_type.append(type_)
                kinds.append(_kind_of(surface, leading(pieces[0])))
            # A form may be written in two ways (capitals of a lower-casing tokenizer): its first one says what it is.
            rows.append((number, start, form, form_type[form], first, start > 0 and _counts(document.counted, a, b)))
    columns = np.array(rows, dtype=np.int64).reshape(-1, 6)  # as in `rows`
    return WordTable(
        document=columns[:, 0],
        start=columns[:, 1],
        form=columns[:, 2],
        type=columns[:, 3],
        first=columns[:, 4].astype(bool),
        counted=columns[:, 5].astype(bool),
        forms=tuple(forms),
        form_type=np.array(form_type, dtype=np.int64),
        kind=np.array(kinds, dtype=np.int64),
        types=tuple(types),
    )


def _words_of(document: TokenisedText) -> Iterator[tuple[int, int, int, int]]:
    """(first character, end, first token, end) of every word whose pieces are its own: none shares a letter or a mark with
    what stands beside the word. White space before the word may be in its first piece."""
    opens = [a for a, _ in document.spans]
    for found in _WORD.finditer(document.text):
        a, b = found.span()
        if b - a < _SHORTEST or not any(map(str.isalpha, found.group())):
            continue
        # The first token that reaches into the word, and the first after it.
        start = max(bisect.bisect_right(opens, a) - 1, 0)
        while start > 0 and document.spans[start - 1][1] > a:
            start -= 1
        while start < len(opens) and document.spans[start][1] <= a:
            start += 1
        end = start
        while end < len(opens) and document.spans[end][0] < b:
            end += 1
        if end == start or document.spans[end - 1][1] > b:
            continue
        if document.text[document.spans[start][0] : a].strip():
            continue
        yield a, b, start, end


def _kind_of(surface: str, leading: bool) -> int:
    """0 to 5: small, Capital or other letters, with or without a sign of its own before the word."""
    case = 0 if surface == surface.lower() else 1 if surface[1:] == surface[1:].lower() else 2
    return 2 * case + int(leading)


def _counts(counted: Spans | None, a: int, b: int) -> bool:
    return counted is None or any(start <= a and b <= end for start, end in counted)


class Mentions(NamedTuple):
    """How often every type of a word table is mentioned in a larger text, of which the table is a part."""

    here: Float[ndarray, "area type"]
    whole: Float[ndarray, " type"]


def mentions_in(
    table: WordTable, words: Words, member: Bool[ndarray, "area passage"], knowledge: Bool[ndarray, " area"]
) -> Mentions:
    """In how many passages of `words` every type of the table stands, for all and for those of each area of `knowledge`."""
    column = np.array([words.vocabulary.get(one, -1) for one in table.types], dtype=np.int64)
    known = column >= 0

    def of(among: Bool[ndarray, " passage"] | None) -> Float[ndarray, " type"]:
        return np.where(known, words.frequency(among)[column], 0.0)

    none = np.zeros(len(column))
    return Mentions(np.stack([of(own) if k else none for own, k in zip(member, knowledge, strict=True)]), of(None))


def own_types(
    table: WordTable, member: Bool[ndarray, "area word"], counted: Mentions | None = None
) -> Bool[ndarray, "area type"]:
    """The types that are each area's own (see the module's head). `member`: the word stands in text of the area. `counted`:
    the mentions in a larger text, of which the table is a part chosen for its areas; else those of the table."""
    whole = table.mentions(np.ones(len(table.document), dtype=bool)) if counted is None else counted.whole
    own = np.zeros((len(member), len(table.types)), dtype=bool)
    share = np.zeros(own.shape)
    for area, inside in enumerate(member):
        here = table.mentions(inside) if counted is None else counted.here[area]
        own[area] = rate_ratio(here, whole - here) >= OWN_RATIO
        share[area] = here / max(here.sum(), 1.0)
    own &= share >= _AT_HOME * share.max(axis=0, initial=0.0)
    return own


def rate_ratio(here: Float[ndarray, " type"], there: Float[ndarray, " type"]) -> Float[ndarray, " type"]:
    """Each type's share of all mentions `here` over its share `there`, both drawn towards equal rates by `_PRIOR` mentions:
    (h / n_h + 5 / N) / (t / n_t + 5 / N). 0 for a type that is not mentioned here."""
    n_here, n_there = max(float(here.sum()), 1.0), max(float(there.sum()), 1.0)
    spread = _PRIOR / (n_here + n_there)
    return np.asarray(np.where(here > 0, (here / n_here + spread) / (there / n_there + spread), 0.0))


def find_items(table: WordTable, member: Bool[ndarray, "area word"], own: Bool[ndarray, "area type"]) -> Items:
    """First mentions of own words in text of their area that counts."""
    here = member & own[:, table.type] & table.first & table.counted
    word = np.flatnonzero(here.any(axis=0))
    return Items(word, here[:, word])


def content_types(table: WordTable) -> Bool[ndarray, " type"]:
    """Types outside the most frequent ones that make up half of all first mentions."""
    count = table.mentions(np.ones(len(table.document), dtype=bool))
    order = np.argsort(-count, kind="stable")
    before = np.cumsum(count[order]) - count[order]
    content = np.zeros(len(count), dtype=bool)
    content[order[before >= _FREQUENT * count.sum()]] = True
    return content
