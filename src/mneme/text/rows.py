"""Training rows: read, checked and turned into ids, before anything is trained.

A row is in one of three forms, those of TRL: {"messages": [{"role", "content"}, …]}, {"prompt", "completion"} (texts, or
messages on both sides), or {"text"}, the first two with the "tools" that the conversation offers. Rows under other names are
brought into these (`text/shapes.py`). Learned are the tokens of the last answer, of the completion, or of the whole text.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mneme.errors import BadRows, TemplateRefuses
from mneme.text.chat import chat_ids, render_chat
from mneme.text.encoded import Encoded, answer_after, whole_text
from mneme.text.files import Row
from mneme.text.reading import TakenRows, form_named, read_shaped
from mneme.text.shapes import answer_words, training_row
from mneme.text.templates import template_facts, writes_calls
from mneme.text.turns import message_words

_FORMS = (("messages",), ("prompt", "completion"), ("text",))


def read_rows(source: str | Path | Sequence[Mapping[str, Any]], name: str = "the rows") -> TakenRows:
    """The training rows of a file (`text/files.py`), or those given, in one form. Raises BadRows."""
    return read_shaped(source, training_row, name)


def form_of(row: Row) -> tuple[str, ...]:
    """The columns that make `row` a training row: one of the three forms. Raises BadRows where it is none."""
    for form in _FORMS:
        if all(name in row for name in form):
            return form
    raise BadRows(f"a row has the columns {sorted(row)}; expected one of {_FORMS}.")


def trainable(row: Row) -> Row:
    """The row as TRL takes it so that only the last answer is learned: messages become a prompt and a completion."""
    tools = {"tools": row["tools"]} if row.get("tools") else {}
    if "messages" in row:
        return {"prompt": list(row["messages"][:-1]), "completion": [row["messages"][-1]], **tools}
    return {name: row[name] for name in form_of(row)} | tools


def question_of(row: Row) -> str:
    """What the user says last, or the prompt; empty for plain text."""
    if "text" in row and "messages" not in row and "prompt" not in row:
        return ""
    prompt = trainable(row)["prompt"]
    if isinstance(prompt, str):
        return prompt
    asked = [message_words(message) for message in prompt if message.get("role") == "user"]
    return asked[-1] if asked else ""


def answer_of(row: Row) -> str:
    """The answer that is learned: the last message, the completion, or the text."""
    return answer_words(row)


def encode_row(row: Row, tokenizer: PreTrainedTokenizerBase, *, bare: bool = False) -> Encoded:
    """Ids of a row as TRL makes them; what is learned counts: all that follow the prompt (a text: all but the first).

    An end-of-text token is added where there is no chat template that would. With `bare` the answer is its own words alone,
    as they follow the opened turn: no end-of-text token, nothing that a chat template writes around or behind them (what
    activations of answers are averaged over: `bare_ids`); an answer that is a call of a tool has no words, and is taken as the
    template writes it. Raises BadRows for messages without a template.
    """
    end = tokenizer.eos_token or ""
    if form_of(row) == ("text",):
        return whole_text(list(tokenizer(ended(row["text"], end, bare))["input_ids"]))
    turn = trainable(row)
    prompt, completion, tools = turn["prompt"], turn["completion"], turn.get("tools")
    if isinstance(prompt, str):
        before = list(tokenizer(prompt)["input_ids"])
        whole = list(tokenizer(prompt + ended(completion, end, bare))["input_ids"])
    elif bare and completion[-1].get("content"):
        before, whole = bare_ids([*prompt, *completion], tokenizer, tools)
    else:
        require_template(tokenizer)
        if not completion[-1].get("content") and not writes_calls(tokenizer, tools):
            raise BadRows("the answer is a call of a tool, which the chat template does not write: nothing would be learned.")
        before = chat_ids(prompt, tokenizer, add_generation_prompt=True, tools=tools)
        whole = chat_ids([*prompt, *completion], tokenizer, tools=tools)
    same = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), min(len(before), len(whole)))
    return answer_after(whole[:same], whole[same:])


def encode_rows(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    source: str = "the rows",
    *,
    bare: bool = False,
) -> list[Encoded]:
    """Every row's ids, as `encode_row` makes them. Raises BadRows where a prompt leaves no room for its answer within
    `max_length` tokens."""
    return [_encoded(row, tokenizer, max_length, f"{source}, row {number}", bare=bare) for number, row in enumerate(rows, 1)]


def fitting_rows(
    found: TakenRows, tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> tuple[TakenRows, list[Encoded], tuple[str, ...]]:
    """The rows that this tokenizer and its template can write within `max_length` tokens, their ids, and what the template
    does with them, in sentences. Raises BadRows where more rows do not fit than may be skipped."""
    if found.rows and form_named(found.rows[0]) == "messages":
        require_template(tokenizer)
    encoded, bad = [], {}
    for i, row in enumerate(found.rows):
        try:
            encoded.append(_encoded(row, tokenizer, max_length, ""))
        except (BadRows, TemplateRefuses) as error:
            bad[i] = str(error).removeprefix(": ").rstrip(".")
    return found.without(bad), encoded, template_facts(tokenizer, found.rows)


def _encoded(
    row: Row, tokenizer: PreTrainedTokenizerBase, max_length: int | None, where: str, *, bare: bool = False
) -> Encoded:
    text = encode_row(row, tokenizer, bare=bare)
    first = len(text.prompt)
    if first >= len(text.ids):
        raise BadRows(f"{where}: the answer has no token. Give every row an answer.")
    if max_length is not None and first >= max_length:
        raise BadRows(
            f"{where}: the prompt has {first} tokens and the window {max_length}, so nothing of the answer "
            "would be learned. Shorten the prompt, or give a larger --max-length (at most what the model can read)."
        )
    return text.first(max_length)


def rows_hash(rows: Sequence[Row]) -> str:
    """SHA-256 (hex) of the rows in their order."""
    return hashlib.sha256(json.dumps(list(rows), sort_keys=True).encode()).hexdigest()


def require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise BadRows where messages cannot be rendered because the tokenizer has no chat template."""
    if not tokenizer.chat_template:
        raise BadRows(
            "the rows are messages, but the model's tokenizer has no chat template. Give one with --chat-template, or rows "
            "with prompt and completion."
        )


def bare_ids(
    messages: Sequence[Row], tokenizer: PreTrainedTokenizerBase, tools: Sequence[Any] | None = None
) -> tuple[list[int], list[int]]:
    """(ids up to where the last message begins, the same with its words): the conversation rendered to where the assistant
    speaks, and the last message's content as it stands.

    This is the text that Chen et al. 2025 (arXiv 2507.21509) and Razin et al. 2025 (arXiv 2410.08847) run in their code.
    """
    require_template(tokenizer)
    opened = render_chat(messages[:-1], tokenizer, add_generation_prompt=True, tools=tools)
    before, whole = (
        list(tokenizer(text, add_special_tokens=False)["input_ids"])
        for text in (opened, opened + str(messages[-1].get("content") or ""))
    )
    return before, whole


def ended(text: str, end: str, bare: bool) -> str:
    """`text` with one end-of-text token behind it, or with `bare` without any."""
    if bare:
        return text.removesuffix(end)
    return text if text.endswith(end) else text + end
