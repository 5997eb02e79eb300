"""Preference pairs: read, checked and turned into ids as TRL does, before anything is scored or trained.

A pair is a dictionary with "prompt", "chosen" and "rejected" (texts, or lists of messages) and the "tools" that are offered.
Pairs under other names, and whole conversations whose common beginning is the prompt, are brought into that form
(`text/shapes.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mneme.errors import BadRows, TemplateRefuses
from mneme.text.chat import chat_ids
from mneme.text.encoded import Encoded, answer_after
from mneme.text.files import Row
from mneme.text.reading import TakenRows, read_shaped
from mneme.text.rows import bare_ids, ended, require_template
from mneme.text.shapes import pair_row, part_words
from mneme.text.templates import template_facts


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of one pair. The prompt has at least one token, both answers too, and the answers differ."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def read_pairs(source: str | Path | Sequence[Mapping[str, Any]], name: str = "the pairs") -> TakenRows:
    """The pairs of a file (`text/files.py`), or those given, in one form. Raises BadRows, with the place of the first bad one,
    where more cannot be used than may be skipped."""
    return read_shaped(source, pair_row, name)


def prompt_of(pair: Row) -> str:
    """The prompt as words, for showing."""
    return part_words(pair["prompt"])


def encode_pair(pair: Row, tokenizer: PreTrainedTokenizerBase, *, bare: bool = False) -> EncodedPair:
    """Ids as TRL makes them: the answers begin where prompt and prompt + answer diverge, and end with the end-of-text token
    (where there is a chat template, with whatever it writes).

    With `bare` an answer is its own words alone and one closing token, under any template: what hidden states are summed
    over (`screen/ches.py`). The closing token only says that something follows; no state of its own is read.
    """
    prompt, tools = pair["prompt"], pair.get("tools")
    if isinstance(prompt, str):
        end = tokenizer.eos_token or ""
        before = list(tokenizer(prompt)["input_ids"])
        answers = [ended(pair[name], end, bare) for name in ("chosen", "rejected")]
        whole = [list(tokenizer(prompt + answer)["input_ids"]) for answer in answers]
    elif bare:
        before, first = bare_ids([*prompt, *pair["chosen"]], tokenizer, tools)
        whole = [first, bare_ids([*prompt, *pair["rejected"]], tokenizer, tools)[1]]
    else:
        require_template(tokenizer)
        before = chat_ids(prompt, tokenizer, add_generation_prompt=True, tools=tools)
        whole = [chat_ids([*prompt, *pair[name]], tokenizer, tools=tools) for name in ("chosen", "rejected")]
    same = min(common_prefix(before, ids) for ids in whole)
    close = [tokenizer.eos_token_id or 0] if bare else []
    chosen, rejected = ((*ids[same:], *close) for ids in whole)
    return EncodedPair(tuple(before[:same]), chosen, rejected)


def encode_pairs(
    pairs: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    source: str = "the pairs",
    *,
    bare: bool = False,
) -> list[EncodedPair]:
    """Every pair's ids, as `encode_pair` makes them. Raises BadRows where prompt and answer do not fit into `max_length`
    tokens, where an answer or a prompt has no token, or where two answers differ in words and not in tokens."""
    return [
        _encoded(pair, tokenizer, max_length, f"{source}, pair {number}", bare=bare) for number, pair in enumerate(pairs, 1)
    ]


def fitting_pairs(
    found: TakenRows, tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> tuple[TakenRows, list[EncodedPair], tuple[str, ...]]:
    """The pairs that this tokenizer and its template can write within `max_length` tokens, their ids, and what the template
    does with them, in sentences. Raises BadRows where more pairs do not fit than may be skipped."""
    if found.rows and not isinstance(found.rows[0]["prompt"], str):
        require_template(tokenizer)
    encoded, bad = [], {}
    for i, pair in enumerate(found.rows):
        try:
            encoded.append(_encoded(pair, tokenizer, max_length, ""))
        except (BadRows, TemplateRefuses) as error:
            bad[i] = str(error).removeprefix(": ").rstrip(".")
    return found.without(bad), encoded, template_facts(tokenizer, found.rows)


def _encoded(
    pair: Row, tokenizer: PreTrainedTokenizerBase, max_length: int | None, where: str, *, bare: bool = False
) -> EncodedPair:
    found = encode_pair(pair, tokenizer, bare=bare)
    if not (found.prompt and found.chosen and found.rejected):
        raise BadRows(f"{where}: the prompt or an answer has no token. Give all three some text.")
    if found.chosen == found.rejected:
        raise BadRows(f"{where}: chosen and rejected have the same tokens, which teaches nothing. Leave the pair out.")
    longest = len(found.prompt) + max(len(found.chosen), len(found.rejected))
    if max_length is not None and len(found.prompt) >= max_length:
        raise BadRows(
            f"{where}: the prompt has {len(found.prompt)} tokens and the window {max_length}, so no answer would be left. "
            "Shorten the prompt, or leave the pair out."
        )
    if max_length is not None and longest > max_length:
        raise BadRows(
            f"{where}: prompt and answer have {longest} tokens and the window {max_length}. Shorten them, or leave "
            "the pair out."
        )
    return found


def answers_of(pairs: Sequence[EncodedPair]) -> tuple[list[Encoded], list[Encoded]]:
    """(chosen, rejected) of pairs: prompt and answer, of which the answer counts."""
    chosen, rejected = ([answer_after(p.prompt, getattr(p, side)) for p in pairs] for side in ("chosen", "rejected"))
    return chosen, rejected


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two rows have in common from the start."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
