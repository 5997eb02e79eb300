"""One model of the real bench measured on everything that is asked, group by group, and kept as small JSON.

What is kept are the nats of every choice of every question and of every held-out paragraph, so that any figure can be made
again without a model. Texts are not kept: they are other people's and lie in the data folder.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from mneme.bench.real.asked import GROUPS, asked, held_out
from mneme.measure.likelihood import score_choices
from mneme.measure.suite import ChoiceQuestion
from mneme.models.architecture import Parts
from mneme.models.likelihood import text_log_likelihoods
from mneme.runs import write_atomic
from mneme.text.encoded import Encoded, whole_text
from mneme.worlds.real.data import part_of

BOOKS = "books"
ALL_GROUPS = (*GROUPS, BOOKS)
_DIGITS = 3
"""Of kept nats: a thousandth is a hundredth of what any figure is told to."""
_LOSS_TOKENS = 192

Kept = dict[str, Any]


def measure_group(group: str, part: int, parts: Parts, tokenizer: PreTrainedTokenizerBase, data: Path, items: Kept) -> Kept:
    """{area: nats} of a slice of a group, and its seconds. Nats: of a question one a choice; of a paragraph their sum.
    `items` is what `items_of` says of the slice.

    Matrix products are made in bfloat16, of the base as of every fine-tune: 3.6 times as fast where the processor has them,
    and with changes of cells that differ from those of float32 by hundredths of a nat (docs/benchmarks.md)."""
    started, used = time.perf_counter(), time.process_time()
    if group == BOOKS:
        texts = held_out(part, data)
        rows = [_row(one.text, tokenizer) for one in texts]
        with torch.autocast(parts.device.type, torch.bfloat16):
            sums = text_log_likelihoods(parts, rows).tolist()
        found = _by_area([one.subject for one in texts], [round(-value, _DIGITS) for value in sums])
    else:
        questions = asked(group, part, data, tokenizer)
        with torch.autocast(parts.device.type, torch.bfloat16):
            scores = score_choices(parts, tokenizer, questions)
        found = _by_area([one.area for one in questions], [np.round(nats, _DIGITS).tolist() for nats in scores.sums])
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    return {"key": key_of_items(items), "nats": found, "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}


def items_of(group: str, part: int, tokenizer: PreTrainedTokenizerBase, data: Path) -> Kept:
    """What every model is asked, without the texts: names, clusters, tokens of every choice, the right one, and for questions
    of a book what their section is for."""
    if group == BOOKS:
        texts = held_out(part, data)
        rows = [{"cluster": one.section, "tokens": sum(_row(one.text, tokenizer).counted)} for one in texts]
        return _by_area([one.subject for one in texts], rows)
    questions = asked(group, part, data, tokenizer)
    told = [
        {
            "id": one.id,
            "cluster": one.cluster,
            "tokens": _lengths(one, tokenizer),
            "right": one.answer,
            **({"part": part_of(one.area, one.cluster)} if one.cluster != one.id and group == "knowledge" else {}),
        }
        for one in questions
    ]
    return _by_area([one.area for one in questions], told)


def key_of_items(items: Kept) -> str:
    """Names what was asked in one slice of a group, and how: kept nats of another list of questions do not belong to it."""
    told = {"items": items, "products": "bfloat16"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def read_kept(file: Path, items: Mapping[str, Kept]) -> Kept:
    """What was kept of one model, slice by slice; slices that answer other questions than `items` are left out."""
    if not file.is_file():
        return {}
    kept: Kept = json.loads(file.read_text("utf-8"))
    return {place: told for place, told in kept.items() if place in items and told["key"] == key_of_items(items[place])}


def write_kept(file: Path, kept: Kept) -> None:
    """Whole or not at all; one line an area."""
    lines = json.dumps(kept, indent=1, separators=(",", ":"))
    write_atomic(file, (_one_line_lists(lines) + "\n").encode())


def _one_line_lists(text: str) -> str:
    """JSON with the innermost lists on one line."""
    found: list[str] = []
    depth = 0
    for line in text.splitlines():
        stripped = line.strip()
        if depth:
            found[-1] += stripped
        else:
            found.append(line)
        depth += stripped.count("[") - stripped.count("]")
    return "\n".join(found)


def _lengths(question: ChoiceQuestion, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of every choice, as they follow the prompt."""
    gap = "" if question.prompt[-1:].isspace() else " "
    before = len(tokenizer(question.prompt)["input_ids"])
    wholes = tokenizer([question.prompt + gap + choice for choice in question.choices])["input_ids"]
    return [len(whole) - before for whole in wholes]


def _row(text: str, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    return whole_text(list(tokenizer(text)["input_ids"])[:_LOSS_TOKENS])


def _by_area(areas: Sequence[str], values: Sequence[Any]) -> Kept:
    found: Kept = {}
    for area, value in zip(areas, values, strict=True):
        found.setdefault(area, []).append(value)
    return found
