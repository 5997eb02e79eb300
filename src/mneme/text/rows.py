"""Training rows: read, checked and turned into ids, before anything is trained.

A row is a dictionary in one of three forms, those of TRL: {"messages": [{"role", "content"}, …]}, {"prompt", "completion"}
(texts, or messages on both sides), or {"text"}. Learned are the tokens of the last answer, of the completion, or of the
whole text.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
from pyarrow import ArrowInvalid
from transformers import PreTrainedTokenizerBase

from mneme.errors import BadRows
from mneme.text.chat import render_chat
from mneme.text.encoded import Encoded, answer_after, whole_text

Row = dict[str, Any]

_FORMS = (("messages",), ("prompt", "completion"), ("text",))
_EXPECTED = 'expected "messages", or "prompt" and "completion", or "text"'


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a .jsonl or .parquet file, checked for form (see `check_form`). Raises BadRows."""
    rows = read_records(path)
    check_form(rows, str(path))
    return rows


def read_records(path: str | Path) -> list[Row]:
    """The records of a .jsonl or .parquet file, whatever their columns. Raises BadRows: no file, unreadable, or no record."""
    file = Path(path)
    if not file.is_file():
        raise BadRows(f"{file} is no file. Give training rows as a .jsonl or .parquet file.")
    rows = _read_parquet(file) if file.suffix == ".parquet" else _read_jsonl(file)
    if not rows:
        raise BadRows(f"{file} holds no row; {_EXPECTED} in every row.")
    return rows


def check_form(rows: Sequence[Row], source: str) -> None:
    """Raise BadRows, naming the row, unless all rows are of one form and none has an empty answer."""
    form = form_of(rows[0], f"{source}, row 1")
    for number, row in enumerate(rows, 1):
        where = f"{source}, row {number}"
        if form_of(row, where) != form:
            raise BadRows(f"{where} has the columns {sorted(row)}, but row 1 has {list(form)}. Give all rows in one form.")
        _check_answer(row, form, where)


def form_of(row: Row, where: str = "a row") -> tuple[str, ...]:
    """The columns that make `row` a training row: one of the three forms.

    Raises BadRows for unknown columns, and for KTO rows: an answer labelled false would be learned as a good one.
    """
    if isinstance(row.get("label"), bool) and "completion" in row:
        raise BadRows(
            f"{where} is a KTO row (completion with a label of true or false), which is not trained on here. Keep the rows "
            "whose label is true and leave the column out, or make pairs of chosen and rejected answers for `mneme dpo`."
        )
    for form in _FORMS:
        if all(name in row for name in form):
            return form
    raise BadRows(f"{where} has the columns {sorted(row)}; {_EXPECTED}.")


def trainable(row: Row) -> Row:
    """The row as TRL takes it so that only the last answer is learned: messages become a prompt and a completion."""
    if "messages" in row:
        return {"prompt": list(row["messages"][:-1]), "completion": [row["messages"][-1]]}
    return {name: row[name] for name in form_of(row)}


def question_of(row: Row) -> str:
    """What the user says last, or the prompt; empty for plain text."""
    if form_of(row) == ("text",):
        return ""
    prompt = trainable(row)["prompt"]
    if isinstance(prompt, str):
        return prompt
    asked = [str(message.get("content") or "") for message in prompt if message.get("role") == "user"]
    return asked[-1] if asked else ""


def answer_of(row: Row) -> str:
    """The answer that is learned: the last message, the completion, or the text."""
    if form_of(row) == ("text",):
        return str(row["text"])
    completion = trainable(row)["completion"]
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")


def encode_row(row: Row, tokenizer: PreTrainedTokenizerBase, *, bare: bool = False) -> Encoded:
    """Ids of a row as TRL makes them; what is learned counts: all that follow the prompt (a text: all but the first).

    An end-of-text token is added where there is no chat template that would. With `bare` the answer is its own words alone,
    as they follow the opened turn: no end-of-text token, nothing that a chat template writes around or behind them (what
    activations of answers are averaged over: `bare_ids`). Raises BadRows for messages without a template.
    """
    end = tokenizer.eos_token or ""
    if form_of(row) == ("text",):
        return whole_text(list(tokenizer(ended(row["text"], end, bare))["input_ids"]))
    turn = trainable(row)
    prompt, completion = turn["prompt"], turn["completion"]
    if isinstance(prompt, str):
        before = list(tokenizer(prompt)["input_ids"])
        whole = list(tokenizer(prompt + ended(completion, end, bare))["input_ids"])
    elif bare:
        before, whole = bare_ids([*prompt, *completion], tokenizer)
    else:
        require_template(tokenizer)
        before = templated_ids(prompt, tokenizer, add_generation_prompt=True)
        whole = templated_ids([*prompt, *completion], tokenizer, add_generation_prompt=False)
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
    encoded = []
    for number, row in enumerate(rows, 1):
        text = encode_row(row, tokenizer, bare=bare)
        first = len(text.prompt)
        if first >= len(text.ids):
            raise BadRows(f"{source}, row {number}: the answer has no token. Give every row an answer.")
        if max_length is not None and first >= max_length:
            raise BadRows(
                f"{source}, row {number}: the prompt has {first} tokens and the window {max_length}, so nothing of the answer "
                "would be learned. Shorten the prompt, or give a larger --max-length (at most what the model can read)."
            )
        encoded.append(text.first(max_length))
    return encoded


def rows_hash(rows: Sequence[Row]) -> str:
    """SHA-256 (hex) of the rows in their order."""
    return hashlib.sha256(json.dumps(list(rows), sort_keys=True).encode()).hexdigest()


def require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise BadRows where messages cannot be rendered because the tokenizer has no chat template."""
    if not tokenizer.chat_template:
        raise BadRows(
            "the rows are messages, but the model's tokenizer has no chat template. Give rows with prompt and completion, or "
            "a base with a chat template."
        )


def templated_ids(messages: Sequence[Row], tokenizer: PreTrainedTokenizerBase, *, add_generation_prompt: bool) -> list[int]:
    """Ids of messages written with the chat template; with `add_generation_prompt`, up to where the assistant begins."""
    text = render_chat(messages, tokenizer, add_generation_prompt=add_generation_prompt)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def bare_ids(messages: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """(ids up to where the last message begins, the same with its words): the conversation rendered to where the assistant
    speaks, and the last message's content as it stands.

    This is the text that Chen et al. 2025 (arXiv 2507.21509) and Razin et al. 2025 (arXiv 2410.08847) run in their code.
    """
    require_template(tokenizer)
    opened = render_chat(messages[:-1], tokenizer, add_generation_prompt=True)
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


def _check_answer(row: Row, form: tuple[str, ...], where: str) -> None:
    if form == ("messages",):
        turns = row["messages"]
        if not isinstance(turns, list) or not turns or not all(isinstance(t, dict) and "role" in t for t in turns):
            raise BadRows(f'{where}: "messages" is no list of messages. Expected [{{"role": …, "content": …}}, …].')
        if turns[-1]["role"] != "assistant" or len(turns) < 2:
            raise BadRows(f"{where} does not end with an answer of the assistant to somebody. Give question and answer.")
    for name in form if form != ("messages",) else ():
        value = row[name]
        turns = isinstance(value, list) and bool(value) and all(isinstance(turn, dict) for turn in value)
        if not isinstance(value, str) and (name == "text" or not turns):
            expected = "a text" if name == "text" else "a text or a list of messages"
            raise BadRows(f"{where}: {name!r} is {type(value).__name__}. Expected {expected}.")
    if not answer_of(row).strip():
        raise BadRows(f"{where}: the answer is empty. Give every row an answer, or leave the row out.")


def _read_jsonl(file: Path) -> list[Row]:
    rows = []
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise BadRows(f"{file}, line {number} is no JSON object. Expected one row a line.")
                rows.append(row)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of 5,000 digits, brackets without end
        raise BadRows(f"{file} cannot be read as JSON lines ({error}). Expected one JSON object a line.") from error
    return rows


def _read_parquet(file: Path) -> list[Row]:
    try:
        found: list[Row] = pyarrow.parquet.read_table(file).to_pylist()
    except (ArrowInvalid, OSError) as error:
        raise BadRows(f"{file} cannot be read as parquet ({error}).") from error
    return found
