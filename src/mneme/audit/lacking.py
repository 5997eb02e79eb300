"""Areas of which the given text has too little: both models write some about them, which is read beside it.

What is written is laid out and read as text of its own, by the same steps: an area's own words are those that its texts use
more than texts about other areas do, all of them written by the models, so that the way they write tells no area apart.
What was given is read as if nothing had been written, to the last digit; only false discoveries are controlled over both
together. No P is made of what models wrote (`mneme.audit.writing`), and an area is read in one of the two, never in both.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from mneme.audit.choosing import ENOUGH
from mneme.audit.evidence import AuditEvidence
from mneme.audit.gathering import evidence_of
from mneme.audit.inputs import DEFAULT_TOKENS, rows_of
from mneme.audit.options import AuditOptions
from mneme.audit.reading import read_text
from mneme.audit.surveying import shown_of
from mneme.audit.taken import examples_of
from mneme.audit.words import Layout, lay_out_words, read_words
from mneme.audit.work import LaidOut
from mneme.audit.writing import TEXT_TOKENS, texts_in_pieces
from mneme.errors import BadCorpus
from mneme.models.pair import ModelPair
from mneme.options import Track, counted
from mneme.predict.areas import Area, default_areas
from mneme.predict.items import Items, WordTable
from mneme.predict.matching import Membership, area_keywords
from mneme.predict.paired import read_at_own_words
from mneme.predict.verdicts import FEWEST
from mneme.runs import RunFolder
from mneme.text.documents import Documents
from mneme.text.packing import PackedRows

_SHARE = 4
"""One token is written for so many that may be read, at most. A choice, never varied."""
_FEWEST_EACH = FEWEST
"""Texts of an area by each model at least: twice the documents that an interval takes, as some are about something else."""
_MOST_EACH = ENOUGH // 2
_COMPARED = 3
"""Areas that are written about at least, others than those asked for if need be: fewer say little of how models write of
anything, and the median of two others is what one area is compared with. Never varied."""
SOURCE = "text that both models wrote"


class Request(NamedTuple):
    """What is to be written."""

    areas: tuple[Area, ...]
    """Those that are short of text, then some to compare them with."""
    short: tuple[str, ...]
    """Names of the former."""
    left_out: tuple[str, ...]
    """Names of areas that are short of text and for which there is no room."""
    each: int
    """Texts by each model of each area."""

    def texts(self) -> int:
        """Texts in all."""
        return 2 * self.each * len(self.areas)


NOTHING_WANTED = Request((), (), (), 0)


class WrittenText(NamedTuple):
    """What both models wrote and what they say of it."""

    request: Request
    layout: Layout
    evidence: AuditEvidence
    examples: dict[str, list[str]]
    """Name of an area -> some of its passages."""


def passages_short(table: WordTable, items: Items, areas: Sequence[Area]) -> dict[int, int]:
    """Index of an area that is read at its own words, and is certain to be without an interval -> how many more documents, or
    different words, that would take. Known before any model is read: an interval takes 8 of either
    (`mneme.predict.verdicts.FEWEST`)."""
    short = {}
    for index, (area, own) in enumerate(zip(areas, items.own, strict=True)):
        word = items.word[own]
        have = min(len(np.unique(table.document[word])), len(np.unique(table.type[word])))
        if read_at_own_words(area) and have < FEWEST:
            short[index] = FEWEST - have
    return short


def what_to_write(areas: Sequence[Area], short: Mapping[int, int], tokens: int | None) -> Request:
    """Texts for the areas `short`, in their order, as far as a quarter of `tokens` (at most read; None: the default) goes: of
    each area as many as may settle it, and the fewest that make an interval before one is left out."""
    texts = (tokens or DEFAULT_TOKENS) // _SHARE // TEXT_TOKENS
    room = texts // (2 * _FEWEST_EACH)
    names = [areas[index].name for index in short]
    if not short or room < _COMPARED:
        return NOTHING_WANTED._replace(left_out=tuple(names))
    served = [areas[index] for index in short][:room]
    asked = [*served, *_others(areas, short, _COMPARED - len(served))]
    return Request(
        areas=tuple(asked),
        short=tuple(area.name for area in served),
        left_out=tuple(names[room:]),
        each=min(_MOST_EACH, texts // (2 * len(asked))),
    )


def _others(areas: Sequence[Area], short: Mapping[int, int], count: int) -> list[Area]:
    """Areas that are not `short`, to compare with: first the user's, then those of the default list."""
    if count <= 0:
        return []
    used = {area.name.casefold() for index, area in enumerate(areas) if index in short}
    found: list[Area] = []
    for area in (*(area for index, area in enumerate(areas) if index not in short), *default_areas()):
        if read_at_own_words(area) and area.name.casefold() not in used:
            used.add(area.name.casefold())
            found.append(area)
    return found[:count]


def may_write(options: AuditOptions) -> bool:
    """Whether models may write beside what is given. Not where nothing is, as they then write all of it
    (`mneme.audit.writing`), nor in a quick audit."""
    return options.writing and not options.quick and options.corpus is not None


def wanted_text(laid: LaidOut, areas: Sequence[Area], tokens: int | None, *, writing: bool) -> Request:
    """What is to be written beside the text that was laid out; nothing without `writing`."""
    if not writing:
        return NOTHING_WANTED
    return what_to_write(areas, passages_short(laid.layout.plan.table, laid.layout.items, areas), tokens)


def write_and_read(
    pair: ModelPair, areas: tuple[Area, ...], request: Request, run: RunFolder, *, seed: int, track: Track
) -> WrittenText | None:
    """Both models write what was asked for, and both read it; None where they write too little to be read. `areas`: all areas
    of the audit, by whose numbers the evidence goes."""
    written = texts_in_pieces(pair, request.areas, request.each, seed, run, track("writing text (texts)", request.texts()))
    texts = tuple(text for _, _, text in written if text)
    about = [area for area, _, text in written if text]
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    documents = Documents(texts, SOURCE, digest)
    try:
        rows = rows_of(documents, pair.tokenizer, pair.max_positions, None)
        laid = laid_out_apart(documents, rows, request.areas, about, pair, seed=seed)
    except BadCorpus:
        return None
    membership = laid.reading.membership
    examples = {area.name: examples_of(rows.passages, membership, index) for index, area in enumerate(request.areas)}
    number = {area.name: index for index, area in enumerate(areas)}
    laid = renumbered(laid, [number.get(area.name) for area in request.areas], len(areas))
    advance = track("words of written text (tokens)", laid.layout.plan.all_tokens())
    words = read_words(pair, laid.layout, run, advance, stage="written-words")
    return WrittenText(request, laid.layout, evidence_of(words, laid.reading, shown_of(laid.reading, []), {}, {}), examples)


def laid_out_apart(
    documents: Documents, rows: PackedRows, areas: tuple[Area, ...], about: Sequence[str], pair: ModelPair, *, seed: int
) -> LaidOut:
    """What is read of written text. `about`: the area that each document was asked to be about. A text is of an area only if
    it was asked for it and reads like it (refusals of all kinds read like text about computers, and were asked for by none);
    one keyword will do, as the request says what it means."""
    reading = read_text(rows, areas)
    named = np.stack([reading.words.total(area_keywords(reading.words, area)) > 0 for area in areas])
    asked = np.array([[about[passage.document] == area.name for passage in rows.passages] for area in areas])
    membership = reading.membership._replace(member=(reading.membership.member | named) & asked)
    layout = lay_out_words(
        documents.texts, rows, membership.member, areas, pair.tokenizer, longest=pair.max_positions, seed=seed
    )
    return LaidOut({}, reading._replace(membership=membership), layout)


def renumbered(laid: LaidOut, numbers: Sequence[int | None], areas: int) -> LaidOut:
    """What was laid out by the numbers of other `areas`: row i becomes row `numbers[i]`, or none; other rows are empty."""
    items, known = laid.layout.items, laid.reading.membership
    rows = [(i, number) for i, number in enumerate(numbers) if number is not None]

    def moved(values: ndarray, empty: float | bool) -> ndarray:
        found = np.full((areas, *values.shape[1:]), empty, dtype=values.dtype)
        for i, number in rows:
            found[number] = values[i]
        return found

    membership = Membership(
        member=moved(known.member, False),
        log_odds=moved(known.log_odds, -np.inf),
        seeds=moved(known.seeds, False),
        chance=frozenset(number for i, number in rows if i in known.chance),
    )
    layout = laid.layout._replace(items=items._replace(own=moved(items.own, False)))
    return laid._replace(layout=layout, reading=laid.reading._replace(membership=membership))


def written_note(request: Request, *, read: bool) -> str:
    """A sentence about what was written, for the report; empty where nothing was short of text."""
    told = ""
    if request.areas:
        told = (
            f"The text has too little about {', '.join(request.short)}: both models wrote "
            f"{counted(request.texts(), 'short text')}{'' if read else ', too little to be read'}. What is said of an area in "
            "such text is marked self-written; it is no sample of what people write, and no P is made of it."
        )
    if request.left_out:
        told += (
            f"{' ' if told else ''}Nothing was written about {', '.join(request.left_out)}, as that is short of text too and "
            "would take more than a quarter of the tokens that are read: give --tokens, or text about them."
        )
    return told
