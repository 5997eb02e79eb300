"""Preference pairs: read, checked and turned into ids as TRL does, before anything is scored or trained.

A pair is a dictionary with "prompt", "chosen" and "rejected" (texts, or lists of messages), or with "chosen" and "rejected" as
whole conversations whose common beginning is the prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mneme.errors import BadRows
from mneme.text.encoded import Encoded, answer_after
from mneme.text.rows import Row, bare_ids, ended, read_records, require_template, templated_ids

_EXPECTED = 'expected "prompt", "chosen" and "rejected", or "chosen" and "rejected" as whole conversations'


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of one pair. The prompt has at least one token, both answers too, and the answers differ."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def read_pairs(path: str | Path) -> list[Row]:
    """The pairs of a .jsonl or .parquet file, checked for form (see `check_pairs`). Raises BadRows."""
    pairs = read_records(path)
    check_pairs(pairs, str(path))
    return pairs


def check_pairs(pairs: Sequence[Row], source: str) -> None:
    """Raise BadRows, naming the pair, for unknown columns, an empty answer, or a chosen answer that is the rejected one."""
    for number, pair in enumerate(pairs, 1):
        where = f"{source}, pair {number}"
        for name in ("chosen", "rejected"):
            if name not in pair or not isinstance(pair[name], str | list):
                raise BadRows(f"{where} has the columns {sorted(pair)}; {_EXPECTED}.")
            if not shown_words(pair[name]).strip():
                raise BadRows(f"{where}: the {name} answer is empty. Give both answers, or leave the pair out.")
        if not isinstance(pair.get("prompt", ""), str | list):
            raise BadRows(f"{where}: the prompt is {type(pair['prompt']).__name__}; {_EXPECTED}.")
        if "prompt" not in pair and isinstance(pair["chosen"], str):
            raise BadRows(f"{where} has no prompt; {_EXPECTED}.")
        if pair["chosen"] == pair["rejected"]:
            raise BadRows(f"{where}: chosen and rejected are the same answer, which teaches nothing. Leave the pair out.")


def explicit(pair: Row) -> Row:
    """The pair with its prompt apart: what both conversations begin with."""
    if "prompt" in pair:
        return {name: pair[name] for name in ("prompt", "chosen", "rejected")}
    chosen, rejected = pair["chosen"], pair["rejected"]
    same = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected)))
    return {"prompt": chosen[:same], "chosen": chosen[same:], "rejected": rejected[same:]}


def prompt_of(pair: Row) -> str:
    """The prompt as words, for showing."""
    return shown_words(explicit(pair)["prompt"])


def encode_pair(pair: Row, tokenizer: PreTrainedTokenizerBase, *, bare: bool = False) -> EncodedPair:
    """Ids as TRL makes them: the answers begin where prompt and prompt + answer diverge, and end with the end-of-text token
    (where there is a chat template, with whatever it writes).

    With `bare` an answer is its own words alone and one closing token, under any template: what hidden states are summed
    over (`screen/ches.py`). The closing token only says that something follows; no state of its own is read.
    """
    turn = explicit(pair)
    prompt = turn["prompt"]
    if isinstance(prompt, str):
        end = tokenizer.eos_token or ""
        before = list(tokenizer(prompt)["input_ids"])
        answers = [ended(turn[name], end, bare) for name in ("chosen", "rejected")]
        whole = [list(tokenizer(prompt + answer)["input_ids"]) for answer in answers]
    elif bare:
        before, first = bare_ids([*prompt, *turn["chosen"]], tokenizer)
        whole = [first, bare_ids([*prompt, *turn["rejected"]], tokenizer)[1]]
    else:
        require_template(tokenizer)
        before = templated_ids(prompt, tokenizer, add_generation_prompt=True)
        whole = [
            templated_ids([*prompt, *turn[name]], tokenizer, add_generation_prompt=False) for name in ("chosen", "rejected")
        ]
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
    encoded = []
    for number, pair in enumerate(pairs, 1):
        found, where = encode_pair(pair, tokenizer, bare=bare), f"{source}, pair {number}"
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
        encoded.append(found)
    return encoded


def answers_of(pairs: Sequence[EncodedPair]) -> tuple[list[Encoded], list[Encoded]]:
    """(chosen, rejected) of pairs: prompt and answer, of which the answer counts."""
    chosen, rejected = ([answer_after(p.prompt, getattr(p, side)) for p in pairs] for side in ("chosen", "rejected"))
    return chosen, rejected


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two rows have in common from the start."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def shown_words(part: str | list[Row]) -> str:
    """A prompt or an answer as words, for showing."""
    if isinstance(part, str):
        return part
    return " ".join(str(message.get("content", "")) if isinstance(message, dict) else "" for message in part)
