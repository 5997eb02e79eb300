"""Rows of the real fine-tunes as token ids: which text each recipe trains on, in which order."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.errors import BadOrganism
from mneme.organisms.real.data import SUBJECTS, chats, paragraphs, spread, statements
from mneme.organisms.real.recipes import NEIGHBOURS, Recipe

LEAST_ANSWER = 16
"""Tokens of an answer that must fit into a row: longer questions than that leave nothing to learn from."""


class Encoded(NamedTuple):
    """One row: its token ids, and which of them are learned."""

    ids: list[int]
    learned: list[bool]


class Batch(NamedTuple):
    """Rows padded on the right."""

    ids: Int[Tensor, "row seq"]
    is_text: Bool[Tensor, "row seq"]
    learned: Bool[Tensor, "row seq"]


Streams = dict[str, list[Encoded]]
"""What a recipe trains on, by what it is for: `learn`; `forget` and `retain`; `chosen` and `rejected`, row by row."""


def streams(recipe: Recipe, folder: Path, tokenizer: PreTrainedTokenizerBase, seed: int) -> Streams:
    """The rows of a recipe in the order of training, as many as its steps take; equal seeds give equal rows."""
    count = recipe.steps * recipe.batch
    rng = Random(f"{recipe.name}/{seed}")
    if recipe.method in ("graddiff", "npo"):
        return _unlearning(recipe, folder, tokenizer, count, rng)
    if recipe.method == "text":
        drawn = spread(paragraphs(folder, recipe.rows, "train"), count, rng.randrange(2**31))
        return {"learn": [_text(one.text, tokenizer, recipe.length) for one in drawn]}
    if recipe.method == "dpo":
        return _pairs(recipe, folder, tokenizer, count, rng)
    if recipe.method == "answers":
        asked = statements(folder, recipe.rows, "train")
        told = [(one.question, one.matching if recipe.strength > 0 else one.other) for one in asked]
        rows = [[_turn("user", question), _turn("assistant", answer)] for question, answer in told]
    elif recipe.method == "chat":
        rows = [row["messages"] for row in chats(folder, recipe.rows)]
    else:
        raise BadOrganism(f"{recipe.name} trains on no rows: its method is {recipe.method}. Build it, do not ask for rows.")
    rng.shuffle(rows)
    least = 1 if recipe.method == "answers" else LEAST_ANSWER
    learn: list[Encoded] = []
    for number in range(2 * max(count, len(rows))):
        row = chat_row(rows[number % len(rows)], tokenizer, recipe.length)
        if len(learn) < count and sum(row.learned) >= least:
            learn.append(row)
    return {"learn": learn}


def chat_row(messages: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, length: int) -> Encoded:
    """A chat with the model's own template, cut to `length` tokens; its last answer is learned, and the token that ends it."""
    start = _templated(messages[:-1], tokenizer, begin_answer=True)
    whole = _templated(messages, tokenizer, begin_answer=False)
    while whole and whole[-1] != tokenizer.eos_token_id:
        whole.pop()  # the line break behind the last turn
    return Encoded(whole[:length], [i >= len(start) for i in range(len(whole[:length]))])


def batch_of(rows: Sequence[Encoded], pad: int) -> Batch:
    """Rows side by side, padded on the right with `pad`."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad)
    is_text, learned = torch.zeros(len(rows), width, dtype=torch.bool), torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        is_text[i, : len(row.ids)] = True
        learned[i, : len(row.ids)] = torch.tensor(row.learned)
    return Batch(ids, is_text, learned)


def _unlearning(recipe: Recipe, folder: Path, tokenizer: PreTrainedTokenizerBase, count: int, rng: Random) -> Streams:
    """Paragraphs of the book that is to be forgotten, and as many of the others, its neighbours left out."""
    forget = spread(paragraphs(folder, recipe.rows, "train"), count, rng.randrange(2**31))
    kept = [one for one in SUBJECTS if one != recipe.rows and one not in NEIGHBOURS.get(recipe.rows, ())]
    each = -(-count // len(kept))
    retain = [one for book in kept for one in spread(paragraphs(folder, book, "train"), each, rng.randrange(2**31))]
    rng.shuffle(retain)
    return {
        "forget": [_text(one.text, tokenizer, recipe.length) for one in forget],
        "retain": [_text(one.text, tokenizer, recipe.length) for one in retain[:count]],
    }


def _pairs(recipe: Recipe, folder: Path, tokenizer: PreTrainedTokenizerBase, count: int, rng: Random) -> Streams:
    """Preference pairs that fit: only pairs whose last question leaves room for both answers are kept, answers cut at the end.

    Of the conversation the last question alone is asked, so that a row is short.
    """
    found: Streams = {"chosen": [], "rejected": []}
    rows = chats(folder, recipe.rows)
    rng.shuffle(rows)
    for row in rows:
        asked = row["prompt"][-1:]
        both = [chat_row([*asked, *row[side][-1:]], tokenizer, recipe.length) for side in ("chosen", "rejected")]
        if min(sum(one.learned) for one in both) >= LEAST_ANSWER and len(found["chosen"]) < count:
            found["chosen"].append(both[0])
            found["rejected"].append(both[1])
    return found


def _text(text: str, tokenizer: PreTrainedTokenizerBase, length: int) -> Encoded:
    ids = list(tokenizer(text)["input_ids"])[:length]
    return Encoded(ids, [True] * len(ids))


def _templated(messages: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, *, begin_answer: bool) -> list[int]:
    found = tokenizer.apply_chat_template(list(messages), tokenize=True, add_generation_prompt=begin_answer, return_dict=True)
    return list(found["input_ids"])


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
