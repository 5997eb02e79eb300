"""The first thing that an audit reads: the areas' own words, and one token of every passage, by both models at once.

What is read is laid out from the text alone; the pieces are stages that survive a kill. The same places are then read under
purposeless changes of the pair (`mneme.audit.null`), which say what such a change does to the most fragile area.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray
from transformers import PreTrainedTokenizerBase

from mneme.errors import BadCorpus
from mneme.models.batching import kept_tokens
from mneme.models.pair import ModelPair
from mneme.predict.areas import Area, Words
from mneme.predict.cloze import Scores, rival_pool
from mneme.predict.item_reading import ReadingPlan, join_batches, plan_reading, read_batch
from mneme.predict.items import Items, content_types, find_items, mentions_in, own_types, word_table
from mneme.predict.knowledge import WordEvidence
from mneme.predict.matching import Membership
from mneme.predict.paired import read_at_own_words
from mneme.predict.tokenised import leading, tokenise
from mneme.runs import Arrays, RunFolder
from mneme.text.packing import PackedRows

_OTHERS = 8
"""Of the passages that match no area every so many is sampled: they cost reading and judge nothing. A round number that was
never varied."""
PIECE_TOKENS = 8192
"""Tokens of one stage at most. A round number that was never varied."""


class Layout(NamedTuple):
    """What is read, and where it stands."""

    plan: ReadingPlan
    items: Items
    """`own` has a row for every area; that of one which is not read at its own words is empty."""
    place_passage: Int[ndarray, " place"]
    """Passage of every sampled token."""
    n_passages: int


class WordReading(NamedTuple):
    """What both models say there."""

    layout: Layout
    read: Arrays

    def evidence(self) -> WordEvidence:
        """The items, for `mneme.predict.knowledge.weigh`."""
        table, word = self.layout.plan.table, self.layout.items.word
        scores = Scores(self.read["p_true"], self.read["margin"], self.read["right"])
        return WordEvidence(
            own=self.layout.items.own,
            document=table.document[word],
            type=table.type[word],
            scores=scores,
            usable=self.read["usable"],
        )


def lay_out_words(
    texts: Sequence[str],
    rows: PackedRows,
    member: Bool[ndarray, "area passage"],
    areas: Sequence[Area],
    tokenizer: PreTrainedTokenizerBase,
    *,
    longest: int | None,
    seed: int,
    whole: tuple[Words, Membership] | None = None,
) -> Layout:
    """Find the words of the text that `rows` holds, and lay out their reading. `whole`: the passages of a larger text, of
    which it is a part, which then says whose own a word is."""
    first = _document_starts(rows)
    kept = rows.ids.numel()
    documents = tokenise(texts[: len(first)], tokenizer)[: len(first)]
    table = word_table(documents, leading(tokenizer))
    place = first[table.document] + table.start
    read = place < kept
    passage = rows.passage.reshape(-1).numpy()[np.minimum(place, kept - 1)]
    knowledge = np.array([read_at_own_words(area) for area in areas])
    inside = member[:, passage] & read & knowledge[:, None]
    own = own_types(table, inside, mentions_in(table, whole[0], whole[1].member, knowledge) if whole else None)
    items = find_items(table, inside, own)
    pool = rival_pool(table, own.any(axis=0) | content_types(table))
    ids = [np.array(one.ids[: kept - start]) for one, start in zip(documents, first, strict=True)]
    sample, where = _sampled(rows, first, np.asarray(member.any(axis=0)), seed)
    plan = plan_reading(ids, table, items, pool, sample, longest=longest)
    if not plan.batches:
        raise BadCorpus("No document of the text has a second token, so there is nothing to predict. Give ordinary text.")
    return Layout(plan, items, where, len(rows.passages))


def _document_starts(rows: PackedRows) -> Int[ndarray, " document"]:
    """Place of the first token of every document in the packed text."""
    document = np.array([passage.document for passage in rows.passages])
    starts = np.array([passage.start_token for passage in rows.passages])
    return np.asarray(starts[np.unique(document, return_index=True)[1]])


def _sampled(
    rows: PackedRows, first: Int[ndarray, " document"], matched: Bool[ndarray, " passage"], seed: int
) -> tuple[Int[ndarray, "place 2"], Int[ndarray, " place"]]:
    """(document, token) of one predicted token of every passage that matches an area and of every eighth other, at random, and
    the number of its passage. Text of no area has no words to read: it costs only what its sample does."""
    generator = np.random.default_rng(seed)
    starts = np.array([passage.start_token for passage in rows.passages] + [rows.ids.numel()])
    places, numbers = [], []
    for number, passage in enumerate(rows.passages):
        begin = max(int(starts[number]), int(first[passage.document]) + 1)  # nothing predicts the first token of a document
        if begin < starts[number + 1] and (matched[number] or number % _OTHERS == 0):
            token = int(generator.integers(begin, starts[number + 1])) - int(first[passage.document])
            places.append((passage.document, token))
            numbers.append(number)
    return np.array(places, dtype=np.int64).reshape(-1, 2), np.array(numbers, dtype=np.int64)


def read_words(
    pair: ModelPair, layout: Layout, run: RunFolder, advance: Callable[[int], None], *, stage: str = "words"
) -> WordReading:
    """Both models over the whole text, a few seconds' work a stage; `advance` is told how many tokens each batch was."""
    most = min(PIECE_TOKENS, kept_tokens(pair.n_parameters, pair.device.type, passes=2))
    pieces = _pieces(layout.plan, range(len(layout.plan.batches)), most)

    def compute(mine: list[int]) -> Iterator[Arrays]:
        for number in mine:
            yield _joined(pair, layout, pieces[number], advance)

    names = [f"{stage}-{number:04d}" for number in range(len(pieces))]
    parts = run.pieces(names, compute)
    return WordReading(layout, join_batches(parts, len(layout.items.word), len(layout.plan.sample)))


def _joined(pair: ModelPair, layout: Layout, batches: Sequence[int], advance: Callable[[int], None]) -> Arrays:
    """Some batches as one stage: their arrays beside each other."""
    found: list[Arrays] = []
    for batch in batches:
        found.append(read_batch(pair, layout.plan, batch))
        advance(layout.plan.tokens(batch))
    joined = {name: np.concatenate([one[name] for one in found], axis=-1) for name in found[0] if name != "gain"}
    return joined | {"gain": np.sum([one["gain"] for one in found], axis=0)}


def _pieces(plan: ReadingPlan, batches: Sequence[int], most: int) -> list[list[int]]:
    """Batches in order, about `most` tokens together."""
    found: list[list[int]] = [[]]
    tokens = 0
    for batch in batches:
        if tokens >= most:
            found.append([])
            tokens = 0
        found[-1].append(batch)
        tokens += plan.tokens(batch)
    return found
