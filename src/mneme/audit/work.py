"""What an audit will read, counted from the text alone before any model is loaded."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from mneme.audit.asking import questions
from mneme.audit.inputs import QUICK_PROMPTS
from mneme.audit.null import CHANGES, NULL_TOKENS, QUICK_NULL_TOKENS
from mneme.audit.reading import Reading, read_text
from mneme.audit.surveying import behaviour_texts
from mneme.audit.words import Layout, lay_out_words
from mneme.audit.writing import TEXT_TOKENS
from mneme.models.forest import plant
from mneme.predict.areas import Area
from mneme.predict.item_reading import ReadingPlan, items_alone
from mneme.predict.probes import AskedProbe
from mneme.predict.understood import strangers
from mneme.text.documents import Documents
from mneme.text.packing import PackedRows

_READ_WORD = 4
"""Tokens for every piece of a word that is read: 4.1 in paragraphs of twelve subjects under the list that ships, 4.6 in the
built-in pair's text; of what models write it is not known beforehand."""


class Read(NamedTuple):
    """Tokens that go through the blocks of one model, and places at which its head is asked."""

    tokens: int
    rows: int


class Work(NamedTuple):
    """What every step without a dictionary reads, of one model."""

    words: Read
    answers: Read
    behaviours: Read
    null: Read
    """Of one reading; there is one by the base and one by each purposeless change."""
    null_readings: int
    written: Read = Read(0, 0)
    """What both models write together, and then read, of areas that are short of text (`mneme.audit.lacking`)."""
    written_null: Read = Read(0, 0)
    """The same of one reading of it, as `null`."""


class LaidOut(NamedTuple):
    """What is read, known from the text alone."""

    asked: dict[int, list[AskedProbe]]
    """Index of a behaviour -> its paired answers."""
    reading: Reading
    layout: Layout


def find_layout(
    documents: Documents,
    rows: PackedRows,
    areas: tuple[Area, ...],
    tokenizer: PreTrainedTokenizerBase,
    *,
    longest: int | None,
    seed: int,
    quick: bool,
) -> LaidOut:
    """Match the areas, find their words, write the paired answers. `longest`: positions that the models allow."""
    asked = questions(areas, tokenizer, QUICK_PROMPTS if quick else None)
    reading = read_text(rows, areas, documents.beside)
    member, whole = reading.membership.member, reading.whole
    layout = lay_out_words(documents.texts, rows, member, areas, tokenizer, longest=longest, seed=seed, whole=whole)
    return LaidOut(asked, reading, layout)


NOTHING = Work(words=Read(0, 0), answers=Read(0, 0), behaviours=Read(0, 0), null=Read(0, 0), null_readings=0)


def count_work(laid: LaidOut, *, longest: int | None, quick: bool, texts: int = 0) -> Work:
    """Count the tokens and places of every step. `longest`: positions that the models allow. `texts`: how many will be
    written; they are taken to be as long as may be, with a piece to read in every `_READ_WORD` tokens."""
    asked, reading, layout = laid
    alone = QUICK_NULL_TOKENS if quick else NULL_TOKENS
    some = items_alone(layout.plan, layout.items, alone, longest)[1]
    written = texts * TEXT_TOKENS
    answers, moved = _asked([*asked.values()]), _asked([[one for _, one in strangers(group)] for group in asked.values()])
    behaviours = reading.without(asked)
    lengths = behaviour_texts(behaviours).length
    return Work(
        words=Read(layout.plan.all_tokens(), _pieces(layout.plan) + len(layout.plan.sample)),
        answers=Read(answers.tokens + moved.tokens // 2, answers.rows + moved.rows // 2),  # the base alone reads these
        behaviours=Read(int(lengths.sum()), len(behaviours.places())),
        null=Read(some.all_tokens(), _pieces(some)),
        null_readings=1 + CHANGES,
        written=Read(written, written // _READ_WORD),
        written_null=Read(min(written, alone), min(written, alone) // _READ_WORD),
    )


def _asked(groups: Sequence[Sequence[AskedProbe]]) -> Read:
    tokens = sum(plant([one.ids for one in group]).ids.numel() for group in groups)
    return Read(tokens, sum(len(one.ids) - one.first for group in groups for one in group))


def _pieces(plan: ReadingPlan) -> int:
    """Tokens that the items of a plan consist of."""
    return sum(len(plan.table.forms[form]) for form in plan.table.form[plan.item_word])
