"""The tokenizer of a folder, checked before it is used: its patterns end, its lists are no longer than a vocabulary."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mneme.confined import Exceeded, Refused, confined, start_confined
from mneme.errors import BrokenWeights, MnemeError, ModelNotFound, UnsafeWeights, one_line
from mneme.models.checkpoints import has_tokenizer, is_gguf, read_json
from mneme.models.vocabularies import as_written
from mneme.text.chat import require_harmless
from mneme.text.templates import read_template

LOG = logging.getLogger("mneme")

_MOST_TOKENS = 2**20
"""Bound of lists of added tokens, and of numbers that ask for such; the largest published vocabularies have
some 290,000 tokens (Hunyuan)."""
_UNBOUNDED_NAMES = ("max_len", "max_length")
"""Numbers of tokenizer_config.json that nothing is made of; model_max_length is 1e30 where there is no limit."""
_LONG = 4096
"""Length of the runs that a doubtful pattern is tried on: more than any word, and quadratic patterns still end."""


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a folder, or None where it has none of its own. Pads on the left: the text ends where answers begin.

    Raises UnsafeWeights where it is code of its own, BrokenWeights where it cannot be read or its patterns do not end,
    BadTemplate where its chat template does not.
    """
    if not has_tokenizer(folder):
        return None
    if is_gguf(folder):
        where: dict[str, Any] = {"pretrained_model_name_or_path": folder.parent, "gguf_file": folder.name}
    else:
        _check_files(folder)
        where = {"pretrained_model_name_or_path": folder}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=trust_remote_code)
        tokenizer, note = as_written(tokenizer, folder)
    except MnemeError:
        raise
    except BaseException as error:  # the tokenizers library raises bare Exception, and its panics are not even that
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise _unreadable(folder, error, trust_remote_code) from error
        raise
    if note:
        LOG.warning(note)
    tokenizer.padding_side = "left"
    if tokenizer.chat_template:
        require_harmless(tokenizer)
    return tokenizer


def _unreadable(folder: Path, error: BaseException, trust_remote_code: bool) -> BrokenWeights | UnsafeWeights:
    settings = folder / "tokenizer_config.json"
    if not trust_remote_code and settings.is_file() and read_json(settings).get("auto_map"):
        return UnsafeWeights(
            f"the tokenizer in {folder} needs Python code of its own, which mneme does not run unless asked. "
            "Read that code, then give --trust-remote-code."
        )
    return BrokenWeights(
        f"the tokenizer in {folder} cannot be read ({one_line(error)}). Copy tokenizer.json and tokenizer_config.json again."
    )


def _check_files(folder: Path) -> None:
    settings = _object(folder / "tokenizer_config.json")
    if settings.get("chat_template") or any(folder.glob("*.jinja")):
        start_confined()  # it starts while the tokenizer is read
    for key, value in settings.items():
        number = isinstance(value, int | float) and not any(name in key for name in _UNBOUNDED_NAMES)
        if number and not abs(value) <= _MOST_TOKENS:
            raise BrokenWeights(
                f"{folder}/tokenizer_config.json: {key} is {str(value)[:40]}. Expected at most {_MOST_TOKENS:,}."
            )
    whole = _object(folder / "tokenizer.json")  # the tokenizers library raises a bare Exception for a truncated one
    for name, found in (("added_tokens", whole.get("added_tokens")), ("added tokens", settings.get("added_tokens_decoder"))):
        if isinstance(found, list | dict) and len(found) > _MOST_TOKENS // 4:
            raise BrokenWeights(
                f"the tokenizer in {folder} has {len(found):,} {name}. Expected at most {_MOST_TOKENS // 4:,}."
            )
    parts = {name: whole.get(name) for name in ("normalizer", "pre_tokenizer")}
    doubtful = [pattern for pattern in _patterns([*parts.values(), whole.get("decoder")]) if not ends_quickly(pattern)]
    if doubtful:
        _try_patterns(folder, parts, doubtful)


def _object(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _patterns(part: Any) -> Iterator[str]:
    """Every regular expression in a part of tokenizer.json."""
    if isinstance(part, list):
        for entry in part:
            yield from _patterns(entry)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key == "Regex" and isinstance(value, str):
                yield value
            else:
                yield from _patterns(value)


def ends_quickly(pattern: str) -> bool:
    """True for a regular expression in which nothing that repeats, or that offers a choice, is itself repeated.

    Only such nesting makes a match take exponential time; published pre-tokenizers have none or repeat digits by threes.
    """
    open_groups = [False]  # for each open group: does it hold something of variable length
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            if pattern[at + 1 : at + 2].isdigit() or pattern[at + 1 : at + 2] in ("k", "g"):
                return False  # a back reference, or a call of a group
            at += 2
        elif letter == "[":
            at = _after_class(pattern, at)
        elif letter == "(":
            open_groups.append(False)
            at += 2 if pattern[at + 1 : at + 2] == "?" else 1
        elif letter == ")":
            variable = len(open_groups) > 1 and open_groups.pop()
            repeats, _ = _quantifier(pattern, at + 1)
            if variable and repeats:
                return False
            open_groups[-1] |= variable
            at += 1
        else:
            _, length = _quantifier(pattern, at)
            open_groups[-1] |= letter == "|" or bool(length)
            at += length or 1
    return True


def _quantifier(pattern: str, at: int) -> tuple[bool, int]:
    """(may it match more than once, how long is it written) of the quantifier at a place; (False, 0) where there is none, or
    where it repeats a few times exactly."""
    found = re.compile(r"[*+?]|\{(\d*)(,?)(\d*)\}").match(pattern, at)
    if not found:
        return False, 0
    if found[0][0] != "{":
        return found[0] != "?", len(found[0])
    exact = not found[2] and found[1] and len(found[1]) < 2
    return not exact, 0 if exact else len(found[0])


def _after_class(pattern: str, at: int) -> int:
    """Where a character class ends; classes may hold classes."""
    depth = 0
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] == "[":
            depth += 1
            if pattern[at + 1 : at + 2] == "]" or pattern[at + 1 : at + 3] == "^]":
                at += len(pattern[at + 1 : at + 3].rstrip("]")) + 1
        elif pattern[at] == "]":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return at


def _try_patterns(folder: Path, parts: dict[str, Any], doubtful: list[str]) -> None:
    """Raises BrokenWeights where these parts take too long on runs of the letters that the patterns name."""
    letters = dict.fromkeys(letter for pattern in doubtful for letter in pattern if letter.isalnum())
    runs = [letter * 40 for letter in [*letters, " ", "a", "1", "."]]
    texts = [run + end for run in runs for end in ("!", "\n", "\x00")] + [run[0] * _LONG + "!" for run in runs]
    model = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    empty: dict[str, Any] = {"version": "1.0", "added_tokens": [], "post_processor": None, "decoder": None, "model": model}
    try:
        confined("tokenize", tokenizer=json.dumps(empty | parts), texts=texts)
    except (Exceeded, Refused) as error:
        if isinstance(error, Refused) and "PanicException" not in str(error):
            return  # loading it for real says what is wrong
        raise BrokenWeights(
            f"the tokenizer in {folder} was stopped: {error}; its pattern is {doubtful[0][:60]!r}. Expected the "
            "tokenizer.json of the published model."
        ) from error


def with_template(
    tokenizer: PreTrainedTokenizerBase | None, file: str | Path | None, whose: str
) -> tuple[PreTrainedTokenizerBase | None, str]:
    """The tokenizer with the chat template in `file`, where one was given, and a sentence about whose template it has.

    `whose`: the model it comes with. Raises BadOption for a file that cannot be read, BadTemplate for a template that does not
    end.
    """
    if tokenizer is None:
        return None, ""
    if file is not None:
        tokenizer.chat_template = read_template(file)
        require_harmless(tokenizer)
        return tokenizer, f"Conversations are written with the chat template in {file}."
    if not tokenizer.chat_template:
        return tokenizer, f'{whose} has no chat template: conversations are written as "role: content" lines.'
    return tokenizer, f"Conversations are written with the chat template of {whose}."


def require_tokenizer(tokenizer: PreTrainedTokenizerBase | None, model: str | Path) -> PreTrainedTokenizerBase:
    """`tokenizer`, which belongs to `model`. Raises ModelNotFound where there is none."""
    if tokenizer is None:
        raise ModelNotFound(
            f"{model} has no tokenizer. Save the tokenizer of its base into its folder (tokenizer.save_pretrained)."
        )
    return tokenizer
