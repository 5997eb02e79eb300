"""Probe texts: what the model should be like the base on (target), and what it should stay as tuned on (retain).

A probe is token ids and the mask of tokens that count: the answers of a conversation, or every token but the first of plain
text. Texts alternate between two halves: one calibrates a method, the other measures it (development). Ours.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.activations.corpus import read_corpus
from mneme.errors import BadCorpus
from mneme.models.chat import render_messages

MAX_TEXTS = 400
"""Texts of one file that are used, spread evenly over it."""


@dataclass(frozen=True)
class Probe:
    """Texts as token ids. `counted[i][t]` is True where the prediction of token t of text i counts; never the first token."""

    name: str
    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    counted: tuple[tuple[bool, ...], ...]

    def part(self, keep: Sequence[int]) -> "Probe":
        """The texts with these numbers, in this order."""
        return Probe(
            self.name,
            tuple(self.texts[i] for i in keep),
            tuple(self.ids[i] for i in keep),
            tuple(self.counted[i] for i in keep),
        )

    def halves(self) -> tuple["Probe", "Probe"]:
        """(calibration, development): every other text, so that nothing is judged on what it was fitted on."""
        return self.part(range(0, len(self.ids), 2)), self.part(range(1, len(self.ids), 2))


@dataclass(frozen=True)
class Batch:
    """Padded rows of a probe. `counted` marks tokens whose prediction counts; `text` is the number of every row's text."""

    ids: Int[Tensor, "batch seq"]
    real: Bool[Tensor, "batch seq"]
    counted: Bool[Tensor, "batch seq"]
    positions: Int[Tensor, "batch seq"]
    text: tuple[int, ...]

    def predicting(self) -> Bool[Tensor, "batch seq"]:
        """True at the tokens that a counted one is predicted from: where the inputs of a layer matter."""
        before = torch.zeros_like(self.counted)
        before[:, :-1] = self.counted[:, 1:]
        return before


def batches(probe: Probe, *, batch_texts: int = 32, padding_side: Literal["left", "right"] = "right") -> Iterator[Batch]:
    """Rows of similar length together. Neither the batch size nor the side of the padding changes what a model makes of a
    text."""
    order = sorted(range(len(probe.ids)), key=lambda i: len(probe.ids[i]))
    for start in range(0, len(order), batch_texts):
        chosen = order[start : start + batch_texts]
        longest = max(len(probe.ids[i]) for i in chosen)
        ids = torch.zeros(len(chosen), longest, dtype=torch.long)
        real = torch.zeros(len(chosen), longest, dtype=torch.bool)
        counted = torch.zeros_like(real)
        for row, i in enumerate(chosen):
            length = len(probe.ids[i])
            here = slice(longest - length, longest) if padding_side == "left" else slice(0, length)
            ids[row, here] = torch.tensor(probe.ids[i])
            real[row, here] = True
            counted[row, here] = torch.tensor(probe.counted[i])
        yield Batch(ids, real, counted, (real.long().cumsum(1) - 1).clamp_min(0), tuple(chosen))


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
    texts, ids, counted = [], [], []
    for record in records:
        text, answers = _written(record, tokenizer)
        coded = tokenizer(text, return_offsets_mapping=answers is not None, verbose=False)
        tokens = list(coded["input_ids"])[:max_positions]
        marks = [True] * len(tokens)
        if answers is not None:
            spans = coded["offset_mapping"][: len(tokens)]
            marks = [b > a and any(start < b and a < stop for start, stop in answers) for a, b in spans]
        if len(tokens) < 2 or not any(marks[1:]):
            continue
        texts.append(text)
        ids.append(tuple(tokens))
        counted.append((False, *marks[1:]))
    if len(ids) < 4:
        raise BadCorpus(
            f"The {name} text holds {len(ids)} text(s) with something to predict, expected at least 4: half of them "
            "calibrate, "
            "the other half measure. Give more text, one a line."
        )
    return Probe(name, tuple(texts), tuple(ids), tuple(counted))


def check_apart(target: Probe, retain: Probe) -> None:
    """Raises BadCorpus where the two probes share more than a tenth of the smaller one's texts: nothing could be told
    apart."""
    shared = len(set(target.texts) & set(retain.texts))
    if shared > 0.1 * min(len(set(target.texts)), len(set(retain.texts))):
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
