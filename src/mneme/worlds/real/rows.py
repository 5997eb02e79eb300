"""Rows of the real fine-tunes as token ids: which text each recipe trains on, in which order."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from transformers import PreTrainedTokenizerBase

from mneme.errors import BadOrganism
from mneme.text.encoded import Encoded, answer_after, whole_text
from mneme.worlds.real.data import SUBJECTS, chats, paragraphs, spread, statements
from mneme.worlds.real.recipes import NEIGHBOURS, Recipe

LEAST_ANSWER = 16
"""Tokens of an answer that must fit into a row: longer questions than that leave nothing to learn from."""


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
    if recipe.method == "mix":
        return _mixed(recipe, folder, tokenizer, count, rng)
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
    return {"learn": _that_fit(rows, tokenizer, recipe.length, least, count)}


def chat_row(messages: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, length: int) -> Encoded:
    """A chat with the model's own template, cut to `length` tokens; its last answer is learned, and the token that ends it."""
    start = _templated(messages[:-1], tokenizer, begin_answer=True)
    whole = _templated(messages, tokenizer, begin_answer=False)
    while whole and whole[-1] != tokenizer.eos_token_id:
        whole.pop()  # the line break behind the last turn
    return answer_after(whole[: len(start)], whole[len(start) :]).first(length)


def _that_fit(
    rows: Sequence[Sequence[dict[str, Any]]], tokenizer: PreTrainedTokenizerBase, length: int, least: int, count: int
) -> list[Encoded]:
    """The first `count` chats of which at least `least` tokens of the answer fit, round and round at most twice."""
    found: list[Encoded] = []
    for number in range(2 * max(count, len(rows))):
        row = chat_row(rows[number % len(rows)], tokenizer, length)
        if len(found) < count and sum(row.counted) >= least:
            found.append(row)
    return found


def _mixed(recipe: Recipe, folder: Path, tokenizer: PreTrainedTokenizerBase, count: int, rng: Random) -> Streams:
    """Half paragraphs, equally many of every book, half general chats, in random order: a training without a purpose."""
    each = -(-count // (2 * len(SUBJECTS)))
    texts = [one.text for book in SUBJECTS for one in spread(paragraphs(folder, book, "train"), each, rng.randrange(2**31))]
    talks = [row["messages"] for row in chats(folder, recipe.rows)]
    rng.shuffle(texts)
    rng.shuffle(talks)
    learn = [_text(text, tokenizer, recipe.length) for text in texts[: count - count // 2]]
    learn += _that_fit(talks, tokenizer, recipe.length, LEAST_ANSWER, count // 2)
    rng.shuffle(learn)
    return {"learn": learn}


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
        if min(sum(one.counted) for one in both) >= LEAST_ANSWER and len(found["chosen"]) < count:
            found["chosen"].append(both[0])
            found["rejected"].append(both[1])
    return found


def _text(text: str, tokenizer: PreTrainedTokenizerBase, length: int) -> Encoded:
    return whole_text(list(tokenizer(text)["input_ids"])[:length])


def _templated(messages: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, *, begin_answer: bool) -> list[int]:
    found = tokenizer.apply_chat_template(list(messages), tokenize=True, add_generation_prompt=begin_answer, return_dict=True)
    return list(found["input_ids"])


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
