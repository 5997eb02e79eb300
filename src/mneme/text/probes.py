"""Probe texts: what the model should be like the base on (target), and what it should stay as tuned on (retain).

Of a conversation the answers count, of plain text every token. Texts alternate between two halves: one calibrates a method,
the other measures it (development). Ours.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mneme.errors import BadCorpus
from mneme.text.chat import render_messages
from mneme.text.documents import read_corpus
from mneme.text.encoded import Encoded

MAX_TEXTS = 400
"""Texts of one file that are used, spread evenly over it."""


@dataclass(frozen=True)
class Probe:
    """Texts under a name, in words and encoded."""

    name: str
    """As errors and pages call it."""
    words: tuple[str, ...]
    texts: tuple[Encoded, ...]

    def part(self, keep: Sequence[int]) -> "Probe":
        """The texts with these numbers, in this order."""
        return Probe(self.name, tuple(self.words[i] for i in keep), tuple(self.texts[i] for i in keep))

    def halves(self) -> tuple["Probe", "Probe"]:
        """(calibration, development): every other text, so that nothing is judged on what it was fitted on."""
        return self.part(range(0, len(self.texts), 2)), self.part(range(1, len(self.texts), 2))


def read_probe(source: str | Path, tokenizer: PreTrainedTokenizerBase, *, name: str, max_positions: int | None) -> Probe:
    """A probe from a .txt, .jsonl (`text` or `messages`) or .parquet file; of conversations only the answers count.

    Raises BadCorpus: unreadable, empty, no text of two tokens, or an answer that the chat template does not write as it is.
    """
    path = Path(source)
    if path.suffix == ".jsonl" and path.is_file():
        read_corpus(path, tokenizer=tokenizer)  # says with the line what is wrong
        records = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        return make_probe(_spread(records), tokenizer, name=name, max_positions=max_positions)
    records = [{"text": text} for text in read_corpus(path, tokenizer=tokenizer).texts]
    return make_probe(_spread(records), tokenizer, name=name, max_positions=max_positions)


def make_probe(
    records: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, *, name: str, max_positions: int | None
) -> Probe:
    """A probe of records with `text` or `messages`; texts are cut at `max_positions` tokens. Raises BadCorpus as
    `read_probe`."""
    words, texts = [], []
    for record in records:
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


def _written(record: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[tuple[int, int]] | None]:
    """The text of a record, and the character spans of its answers (None: plain text, all of it counts)."""
    if isinstance(record.get("text"), str):
        return record["text"].strip(), None
    text = render_messages(record["messages"], tokenizer)
    spans, place = [], 0
    for message in record["messages"]:
        content = str(message["content"]).strip()
        start = text.find(content, place)
        if start < 0:
            raise BadCorpus(
                f"The chat template does not write a message as it is ({content[:60]!r}), so the tokens of the answers cannot "
                "be told. Give the conversations as `text`."
            )
        place = start + len(content)
        if message["role"] == "assistant":
            spans.append((start, place))
    return text, spans
