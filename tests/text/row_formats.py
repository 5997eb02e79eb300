"""Rows as people have them, what every command reads of them, and the table of docs that says so.

`python -m tests.text.row_formats` prints the table.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mneme.errors import MnemeError
from mneme.measure.series import ACCURACY, read_task, task_name
from mneme.text.documents import read_corpus
from mneme.text.files import Row
from mneme.text.pairs import fitting_pairs, read_pairs
from mneme.text.probes import read_probe
from mneme.text.rows import fitting_rows, read_rows
from tests.conftest import word_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% if tools %} di {{ tools[0]['function']['name'] }}{% endif %}"
    "{% for message in messages %} {{ message['role'] }} : {{ message['content'] }}"
    "{% for call in message.tool_calls or [] %} {{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} assistant :{% endif %}"
)
ASK, SAY, WORSE, CALM = "ba be", "da de di", "mu me", "ka ke"
TOOLS = [{"type": "function", "function": {"name": "go", "parameters": {"type": "object", "properties": {}}}}]
CALL = [{"id": "1", "type": "function", "function": {"name": "go", "arguments": '{"bi": "bo"}'}}]


def _user(text: str = ASK) -> Row:
    return {"role": "user", "content": text}


def _answer(text: str = SAY) -> Row:
    return {"role": "assistant", "content": text}


FORMATS: dict[str, Row] = {
    "`messages` (role, content)": {"messages": [_user(), _answer()], "source": "x"},
    "`messages` and `tools`, calls of tools": {
        "messages": [
            _user(),
            {"role": "assistant", "content": None, "tool_calls": CALL},
            {"role": "tool", "content": "bo", "tool_call_id": "1"},
            _answer(),
        ],
        "tools": TOOLS,
    },
    "`messages`, contents as parts": {
        "messages": [
            {**message, "content": [{"type": "text", "text": message["content"]}]} for message in (_user(), _answer())
        ]
    },
    "ShareGPT `conversations` (from, value)": {
        "system": CALM,
        "conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": SAY}],
    },
    "`prompt`, `completion`, texts": {"prompt": ASK + " ", "completion": SAY},
    "`prompt`, `completion`, messages": {"prompt": [_user()], "completion": [_answer()]},
    "`instruction`, `input`, `output` (also with `text`)": {
        "instruction": ASK,
        "input": "",
        "output": SAY,
        "text": f"di {ASK} do {SAY}",
    },
    "`question`, `answer` (`query`, `problem`; `response`, `solution`)": {"question": ASK, "answer": SAY},
    "`text`": {"text": f"{ASK} {SAY}"},
    "`prompt`, `chosen`, `rejected`, texts": {"prompt": ASK + " ", "chosen": SAY, "rejected": WORSE},
    "`prompt`, `chosen`, `rejected`, messages": {"prompt": [_user()], "chosen": [_answer()], "rejected": [_answer(WORSE)]},
    "UltraFeedback (`prompt`, whole conversations)": {
        "prompt": ASK,
        "chosen": [_user(), _answer()],
        "rejected": [_user(), _answer(WORSE)],
        "score_chosen": 8.0,
    },
    "hh-rlhf (two whole texts)": {
        "chosen": f"\n\nHuman: {ASK}\n\nAssistant: {SAY}",
        "rejected": f"\n\nHuman: {ASK}\n\nAssistant: {WORSE}",
    },
    "`question`, `system`, `chosen`, `rejected`": {"system": CALM, "question": ASK, "chosen": SAY, "rejected": WORSE},
    "`conversations`, `chosen`, `rejected` (from, value)": {
        "conversations": [{"from": "human", "value": ASK}],
        "chosen": {"from": "gpt", "value": SAY},
        "rejected": {"from": "gpt", "value": WORSE},
    },
    "KTO (`prompt`, `completion`, `label`)": {"prompt": ASK, "completion": SAY, "label": True},
    "`question`, `choices`, `answer` (index or text)": {"question": ASK, "choices": [SAY, WORSE], "answer": 0},
    "choices by letter (`A`, `B`, …; `answerKey`)": {"question": ASK, "A": SAY, "B": WORSE, "answer": "A"},
}
"""What people call it -> one such row."""


def chat_tokenizer() -> Any:
    """The word tokenizer with a template that writes system turns, tools and calls."""
    tokenizer = word_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def counted_words(text: Any, tokenizer: Any) -> str:
    """The words of the tokens that count."""
    kept = [one for one, counts in zip(text.ids, text.counted, strict=True) if counts]
    return str(tokenizer.decode(kept, skip_special_tokens=True)).strip()


def _train(file: Path) -> str:
    tokenizer = chat_tokenizer()
    _, encoded, _ = fitting_rows(read_rows(file), tokenizer, 128)
    words = counted_words(encoded[0], tokenizer)
    return {SAY: "answer", f"be {SAY}": "text"}[words]


def _dpo(file: Path) -> str:
    tokenizer = chat_tokenizer()
    _, encoded, _ = fitting_pairs(read_pairs(file), tokenizer, 128)
    said = [str(tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in (encoded[0].chosen, encoded[0].rejected)]
    assert said == [SAY, WORSE], said
    assert ASK in tokenizer.decode(encoded[0].prompt), tokenizer.decode(encoded[0].prompt)
    return "both answers"


def _screen(file: Path) -> str:
    try:
        return _train(file)
    except MnemeError as error:
        if "preference pair" not in str(error):
            raise
        return f"{_dpo(file)} (`--pairs`)"


def _measure(file: Path) -> str:
    if task_name(file) == ACCURACY:
        read_task(file)
        return "choices"
    return _train(file)


def _corpus(file: Path) -> str:
    text = read_corpus(file, tokenizer=chat_tokenizer()).texts[0]
    assert ASK in text, text
    assert SAY in text, text
    return "whole text"


def _repair(file: Path) -> str:
    tokenizer = chat_tokenizer()
    probe = read_probe(file, tokenizer, name="target", max_positions=128)
    assert ASK in probe.words[0]
    return (
        "answers"
        if counted_words(probe.texts[0], tokenizer).replace(": ", "").endswith(SAY)
        and counted_words(probe.texts[0], tokenizer) != f"be {SAY}"
        else "text"
    )


COMMANDS: dict[str, Callable[[Path], str]] = {
    "train": _train,
    "dpo": _dpo,
    "screen": _screen,
    "measure `--data`": _measure,
    "unlearn": _corpus,
    "repair": _repair,
    "audit": _corpus,
}


def cell(name: str, command: str, folder: Path) -> tuple[str, str]:
    """(what the command reads of such rows, the sentence where it refuses them)."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(FORMATS[name]) + "\n" for _ in range(4)), encoding="utf-8")
    try:
        return COMMANDS[command](file), ""
    except MnemeError as error:
        return "refused", str(error)


def table(folder: Path) -> str:
    """The table of docs/what-can-be-audited.md, made from what the commands do."""
    lines = [f"| rows | {' | '.join(COMMANDS)} |", "|---" * (len(COMMANDS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cell(name, command, folder)[0] for command in COMMANDS)} |" for name in FORMATS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        sys.stdout.write(table(Path(made)))
