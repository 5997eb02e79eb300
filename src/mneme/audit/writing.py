"""Text where there is none: for every area both models write some, half each, and the audit reads that.

Prompted by name and description (a chat where the tokenizer has a template, else the beginning of a text), seeded, one file in
the user's cache for each pair, list of areas and seed. What models write is no sample of what people write: they say what they
know, in their own way, and one that has lost a subject may write about another. So the report marks such text, and no P is
made of it: no curve was fitted on any.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from mneme.audit.ordinary import starter_texts
from mneme.errors import BadCorpus, TemplateRefuses
from mneme.models.checkpoints import model_fingerprint
from mneme.models.pair import ModelPair, Side
from mneme.models.sampling import generate
from mneme.predict.areas import Area
from mneme.predict.item_reading import SIDES
from mneme.predict.paired import probes_of
from mneme.runs import Arrays, RunFolder, cache_folder, write_atomic
from mneme.text.chat import render_chat, without_opening

WRITTEN_TOKENS = 49_152
"""Tokens that both write together where no number is asked for: some 24 texts for each area of the default list."""
TEXT_TOKENS = 96
"""Tokens of one text at most: a paragraph. A round number that was never varied."""
FEWEST_TEXTS = 4
"""Texts of one area and model at least, one in each form."""
WRITTEN_TOGETHER = 32
"""Texts that one model writes together, which is what a kill costs nothing of: the file appears whole or not at all."""
_CHATS = (
    "Write a paragraph of a textbook about {name}. {description}",
    "Explain one important fact of {name} to a student, in a few sentences.",
    "Write a short article about {name}.",
    "Give a worked example from {name}, with the technical terms. {description}",
)
_BEGINNINGS = (
    "{Name}\n\n{description} ",
    "A textbook of {name}, chapter 1.\n\n",
    "Encyclopedia: {name}. {description} ",
    "Lecture notes on {name}:\n\n",
)


def written_file(pair: ModelPair, areas: Sequence[Area], tokens: int | None, seed: int) -> Path:
    """Where the text of this pair lies, or will: named by both models, the areas, how much and the seed."""
    told = {
        "models": [model_fingerprint(folder) for folder in (pair.base_folder, pair.tuned_folder)],
        "areas": [[area.name, area.description] for area in areas_to_write(areas)],
        "texts": texts_each(areas, tokens),
        "forms": [_CHATS, _BEGINNINGS, dict(starter_texts()), TEXT_TOKENS],
        "precision": pair.precision,
        "seed": seed,
    }
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "written" / f"self-written-{key}.jsonl"


def areas_to_write(areas: Sequence[Area]) -> list[Area]:
    """Areas that are read in text: those without paired answers."""
    return [area for area in areas if not probes_of(area)]


def texts_each(areas: Sequence[Area], tokens: int | None) -> int:
    """Texts of each area by each model, as many as make about `tokens` in all."""
    wanted = (tokens or WRITTEN_TOKENS) // (2 * TEXT_TOKENS * max(1, len(areas_to_write(areas))))
    return max(FEWEST_TEXTS, wanted)


def write_text(pair: ModelPair, areas: Sequence[Area], tokens: int | None, seed: int, advance: Callable[[int], None]) -> Path:
    """The file of `written_file`, made unless it is there; `advance` is told how many texts were written.

    Raises BadCorpus where every area has paired answers, or where the models write nothing."""
    file = written_file(pair, areas, tokens, seed)
    if file.is_file():
        return file
    asked = _asked(areas_to_write(areas), texts_each(areas, tokens), pair.tokenizer)
    rows: dict[tuple[int, Side], str] = {}
    for side in SIDES:
        for start in range(0, len(asked), WRITTEN_TOGETHER):
            texts = _batch(pair, asked, side, start, seed)
            rows |= {(start + i, side): text for i, text in enumerate(texts)}
            advance(len(texts))
    told = _told(asked, rows, texts_each(areas, tokens))
    lines = [json.dumps({"text": text, "area": name, "by": side}) for name, side, text in told if text]
    if not lines:
        raise BadCorpus(
            "No text was given, and the models wrote none about these areas. Give ordinary text with --corpus "
            "(a .txt, .jsonl or .parquet file, or a datasets name)."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, ("\n".join(lines) + "\n").encode())
    return file


def texts_in_pieces(
    pair: ModelPair, areas: Sequence[Area], each: int, seed: int, run: RunFolder, advance: Callable[[int], None]
) -> list[tuple[str, Side, str]]:
    """(area, who wrote it, text) of `each` texts of every area by each model, in the order of `write_text`, kept in the run: a
    stage for every 32 texts. A text may be empty."""
    asked = _asked(areas, each, pair.tokenizer)
    batches = [(side, start) for side in SIDES for start in range(0, len(asked), WRITTEN_TOGETHER)]

    def compute(mine: list[int]) -> Iterator[Arrays]:
        for number in mine:
            texts = _batch(pair, asked, *batches[number], seed)
            yield {"texts": np.frombuffer(json.dumps(texts).encode(), dtype=np.uint8)}
            advance(len(texts))

    parts = run.pieces([f"written-{side}-{start:04d}" for side, start in batches], compute)
    rows: dict[tuple[int, Side], str] = {}
    for (side, start), part in zip(batches, parts, strict=True):
        rows |= {(start + i, side): text for i, text in enumerate(json.loads(part["texts"].tobytes()))}
    return _told(asked, rows, each)


def _asked(areas: Sequence[Area], each: int, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    """(name of the area, prompt) of every text by one model."""
    return [(area.name, prompt_for(area, number, tokenizer)) for area in areas for number in range(each)]


def _batch(pair: ModelPair, asked: Sequence[tuple[str, str]], side: Side, start: int, seed: int) -> list[str]:
    """What one model writes at the prompts from number `start` on, with single spaces."""
    prompts = [prompt for _, prompt in asked[start : start + WRITTEN_TOGETHER]]
    with pair.using(side) as parts:
        texts = generate(
            parts,
            pair.tokenizer,
            prompts,
            max_new_tokens=TEXT_TOKENS,
            temperature=1.0,
            seed=(seed * 2 + SIDES.index(side)) * 1_000_003 + start,
            batch_prompts=WRITTEN_TOGETHER,
        )
    return [" ".join(text.split()) for text in texts]


def _told(asked: Sequence[tuple[str, str]], rows: dict[tuple[int, Side], str], each: int) -> list[tuple[str, Side, str]]:
    """The first text of every area, then the second of every area, …, by both models in turn, so that fewer tokens are fewer
    of each and of every area."""
    order = sorted(range(len(asked)), key=lambda i: (i % each, i))
    return [(asked[i][0], side, rows[i, side]) for i in order for side in SIDES]


def prompt_for(area: Area, number: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """What is asked for text number `number` of an area; forms in turn. Where there is no chat template a model may follow no
    prompt: every second text goes on from mneme's own paragraph about the area, where there is one."""
    told = {"name": area.name, "Name": area.name[:1].upper() + area.name[1:], "description": area.description}
    if tokenizer.chat_template:
        content = _filled(_CHATS[number % len(_CHATS)], told)
        try:
            turns = [{"role": "user", "content": content}]
            return without_opening(render_chat(turns, tokenizer, add_generation_prompt=True), tokenizer)
        except TemplateRefuses:
            pass  # a template that takes no lone user turn: the beginning of a text serves any model
    own = starter_texts().get(area.name)
    if own is not None and number % 2:
        return f"{own}\n\n"
    return _filled(_BEGINNINGS[number // (1 if own is None else 2) % len(_BEGINNINGS)], told)


def _filled(form: str, told: dict[str, str]) -> str:
    """By replacement and not by `format`: names and descriptions are a user's, and may hold braces."""
    for name, value in told.items():
        form = form.replace("{" + name + "}", value)
    return form.strip(" ")
