"""Probe texts: what the model should be like the base on (target), and what it should stay as tuned on (retain).

Of a conversation the answers count, of plain text every token. Texts alternate between two halves: one calibrates a method,
the other measures it (development). Ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mneme.errors import BadCorpus, BadRows, TemplateRefuses
from mneme.text.documents import read_corpus, row_text
from mneme.text.encoded import Encoded
from mneme.text.files import TABLES, entries_of
from mneme.text.reading import SkippedRow, taken
from mneme.text.shapes import text_row
from mneme.text.templates import template_facts
from mneme.text.turns import message_words

MAX_TEXTS = 400
"""Texts of one file that are used, spread evenly over it."""


@dataclass(frozen=True)
class Probe:
    """Texts under a name, in words and encoded."""

    name: str
    """As errors and pages call it."""
    words: tuple[str, ...]
    texts: tuple[Encoded, ...]
    source: str = ""
    notes: tuple[str, ...] = ()
    """Which columns were taken, and what a chat template did with them, a sentence each."""
    skipped: tuple[SkippedRow, ...] = ()

    def part(self, keep: Sequence[int]) -> "Probe":
        """The texts with these numbers, in this order."""
        return Probe(self.name, tuple(self.words[i] for i in keep), tuple(self.texts[i] for i in keep))

    def halves(self) -> tuple["Probe", "Probe"]:
        """(calibration, development): every other text, so that nothing is judged on what it was fitted on."""
        return self.part(range(0, len(self.texts), 2)), self.part(range(1, len(self.texts), 2))


def read_probe(source: str | Path, tokenizer: PreTrainedTokenizerBase, *, name: str, max_positions: int | None) -> Probe:
    """A probe from any file that `read_corpus` reads; of conversations, and of prompt and completion, only the answers count.

    Raises BadCorpus: unreadable, empty, no text of two tokens, or an answer that the chat template does not write as it is.
    """
    path = Path(source)
    if not path.is_file() or path.suffix not in TABLES:
        documents = read_corpus(path, tokenizer=tokenizer)
        return make_probe([{"text": text} for text in documents.texts], tokenizer, name=name, max_positions=max_positions)
    try:
        found = taken(str(path), entries_of(path), text_row)
        found = found.without({i: why for i, row in enumerate(found.rows) if (why := _unwritten(row, tokenizer))})
    except BadRows as error:
        raise BadCorpus(str(error)) from error
    probe = make_probe(found.rows, tokenizer, name=name, max_positions=max_positions)
    notes = (found.told(), *template_facts(tokenizer, found.rows))
    return replace(probe, notes=notes, skipped=found.skipped, source=str(path))


def make_probe(
    records: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, *, name: str, max_positions: int | None
) -> Probe:
    """A probe of rows in one form (`text/shapes.py`), `MAX_TEXTS` of them; texts are cut at `max_positions` tokens. Raises
    BadCorpus as `read_probe`."""
    words, texts = [], []
    for record in _spread(list(records)):
        text, answers = _written(record, tokenizer)
        coded = tokenizer(text, return_offsets_mapping=answers is not None, verbose=False)
        tokens = list(coded["input_ids"])[:max_positions]
        counted = [True] * len(tokens)
        if answers is not None:
            spans = coded["offset_mapping"][: len(tokens)]
            counted = [b > a and any(start < b and a < stop for start, stop in answers) for a, b in spans]
        if len(tokens) < 2 or not any(counted[1:]):
            continue
        words.append(text)
        texts.append(Encoded(tuple(tokens), (False, *counted[1:])))
    if len(texts) < 4:
        raise BadCorpus(
            f"The {name} text holds {len(texts)} text(s) with something to predict, expected at least 4: half of them "
            "calibrate, "
            "the other half measure. Give more text, one a line."
        )
    return Probe(name, tuple(words), tuple(texts))


def check_apart(target: Probe, retain: Probe) -> None:
    """Raises BadCorpus where the two probes share more than a tenth of the smaller one's texts: nothing could be told
    apart."""
    shared = len(set(target.words) & set(retain.words))
    if shared > 0.1 * min(len(set(target.words)), len(set(retain.words))):
        raise BadCorpus(
            f"{shared} of the texts stand both in the target and in the retained file. The target is where the model "
            "should be "
            "as the base again, the retained text where it should stay as tuned: give two different sets."
        )


def _spread(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(records) <= MAX_TEXTS:
        return records
    return [records[i * len(records) // MAX_TEXTS] for i in range(MAX_TEXTS)]


def _unwritten(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    """Why the answers of a row cannot be told in its text; nothing where they can."""
    try:
        _written(row, tokenizer)
    except (BadCorpus, TemplateRefuses) as error:
        return str(error).rstrip(".")
    return ""


def _written(record: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[tuple[int, int]] | None]:
    """The text of a record, and the character spans of its answers (None: plain text, all of it counts)."""
    if "text" in record:
        return record["text"].strip(), None
    prompt = record.get("prompt")
    text = row_text(record, tokenizer)
    if isinstance(prompt, str):
        return text, [(len(prompt), len(text))]
    messages = record["messages"] if prompt is None else [*prompt, *record["completion"]]
    spans, place = [], 0
    for number, message in enumerate(messages):
        content = message_words({**message, "tool_calls": None}).strip()
        start = text.find(content, place)
        if start < 0 and number == 0 and message["role"] == "system":
            continue  # a template that leaves it out; said where the file is read
        if start < 0:
            raise BadCorpus(
                f"The chat template does not write a message as it is ({content[:60]!r}), so the tokens of the answers cannot "
                "be told. Give the conversations as `text`."
            )
        place = start + len(content)
        if message["role"] == "assistant" and content:
            spans.append((start, place))
    return text, spans
