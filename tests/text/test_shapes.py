"""Rows under all their names: what every command reads of them is the table of the docs; what cannot be read is named."""

import re
from pathlib import Path
from typing import Any

import pytest

from mneme.errors import BadRows
from mneme.text.choices import choice_row
from mneme.text.files import Row
from mneme.text.rows import encode_row, read_rows
from mneme.text.shapes import pair_row, text_row, training_row
from tests.text.row_formats import ASK, CALL, CALM, COMMANDS, FORMATS, SAY, TOOLS, WORSE, cell, chat_tokenizer, table

PAGE = Path(__file__).parents[2] / "docs" / "what-can-be-audited.md"
REASONS = {
    "dpo": r"expected \"prompt\", \"chosen\" and \"rejected\"|KTO row",
    "": r"preference pair .*mneme dpo|KTO row|question with choices: give it to `mneme measure`",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_cell(tmp_path: Path, name: str, command: str) -> None:
    says, reason = cell(name, command, tmp_path)
    assert f"| {name} |" in PAGE.read_text(encoding="utf-8")
    if says == "refused":
        assert re.search(REASONS["dpo" if command == "dpo" else ""], reason), reason
        assert "Traceback" not in reason


def test_the_table_of_the_docs_is_what_the_commands_do(tmp_path: Path) -> None:
    assert table(tmp_path) in PAGE.read_text(encoding="utf-8"), "print it with: python -m tests.text.row_formats"


def turns(*said: tuple[str, Any]) -> list[Row]:
    return [{"role": role, "content": content} for role, content in said]


TALK = turns(("user", ASK), ("assistant", SAY))


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": SAY}], "system": ""}, TALK),
        ({"conversation": TALK}, TALK),
        ({"messages": '[{"role": "user", "content": "ba be"}, {"role": "assistant", "content": "da de di"}]'}, TALK),
        ({"instruction": ASK, "input": "", "output": SAY, "text": "all"}, TALK),
        ({"instruction": "ba", "input": "be", "output": SAY}, turns(("user", "ba\n\nbe"), ("assistant", SAY))),
        ({"instruction": ASK, "context": None, "response": SAY, "category": "qa"}, TALK),
        (
            {"instruction": ASK, "output": SAY, "history": [["ka", "ke"]], "system": CALM},
            turns(("system", CALM), ("user", "ka"), ("assistant", "ke"), ("user", ASK), ("assistant", SAY)),
        ),
        (
            {"system_prompt": CALM, "question": ASK, "response": SAY},
            turns(("system", CALM), ("user", ASK), ("assistant", SAY)),
        ),
        ({"query": ASK, "response": SAY}, TALK),
        ({"problem": ASK, "solution": SAY}, TALK),
        ({"prompt": ASK, "response": SAY}, TALK),
        ({"inputs": ASK, "targets": SAY}, TALK),
        ({"prompt": ASK, "chosen": TALK, "rejected": TALK, "messages": TALK}, TALK),
        (
            {"messages": [{**TALK[0], "content": [{"type": "text", "text": "ba "}, {"type": "text", "text": "be"}]}, TALK[1]]},
            TALK,
        ),
        ({"question": ASK, "answer": '{"a": 1}'}, turns(("user", ASK), ("assistant", '{"a": 1}'))),
        ({"question": "[1, 2]", "answer": SAY}, turns(("user", "[1, 2]"), ("assistant", SAY))),
    ],
)
def test_conversations_under_other_names(row: Row, messages: list[Row]) -> None:
    found = training_row(row)
    assert found.row == {"messages": messages}
    assert set(found.columns) <= row.keys()
    assert training_row(found.row).row == found.row


def test_calls_of_tools_are_learned_as_the_template_writes_them() -> None:
    row = {"messages": [TALK[0], {"role": "assistant", "tool_calls": CALL}], "tools": TOOLS}
    found = training_row(row).row
    assert found["messages"][1]["content"] == ""
    assert found["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"bi": "bo"}
    tokenizer = chat_tokenizer()
    text = encode_row(found, tokenizer)
    assert "di" in tokenizer.decode(text.prompt)
    assert len(text.ids) > len(text.prompt) + 1
    assert "di" not in tokenizer.decode(encode_row({"messages": found["messages"]}, tokenizer).prompt)
    tokenizer.chat_template = tokenizer.chat_template.replace("message.tool_calls or []", "[]")
    with pytest.raises(BadRows, match="a call of a tool, which the chat template does not write"):
        encode_row(found, tokenizer)
    nulls = {"messages": [{**TALK[0], "tool_calls": None, "name": None}, TALK[1]], "tools": None}  # what Parquet fills in
    assert training_row(nulls).row == {"messages": TALK}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": turns(("user", ASK))}, "does not end with an answer of the assistant"),
        ({"messages": [*TALK, *turns(("user", "ba"))]}, "does not end with an answer of the assistant"),
        ({"messages": turns(("user", None), ("assistant", SAY))}, r"message 1 \(user\) has no content"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, TALK[1]]}, "a part of the kind 'image'. Only text"),
        ({"messages": TALK, "images": ["a.png"]}, "has `images`. Only text is read"),
        ({"messages": turns(("wizard", ASK), ("assistant", SAY))}, "is said by 'wizard'"),
        ({"messages": "hello"}, "`messages` is no list of messages"),
        ({"messages": TALK, "tools": "look"}, "`tools` is no list of tools"),
        ({"question": "", "answer": SAY}, "has an empty question"),
        ({"question": ASK, "answer": 3}, "`answer` is a int. Expected text"),
        ({"prompt": ASK, "completion": SAY, "label": "False"}, "is a KTO row"),
        ({"text": ""}, "has an empty answer"),
        ({"body": ASK}, r"has the columns \['body'\]; expected"),
    ],
)
def test_what_cannot_be_learned_is_named(row: Row, words: str) -> None:
    with pytest.raises(BadRows, match=words):
        training_row(row)


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        (
            {"prompt": ASK, "chosen": [*TALK], "rejected": [TALK[0], *turns(("assistant", WORSE))]},
            {"prompt": TALK[:1], "chosen": TALK[1:], "rejected": turns(("assistant", WORSE))},
        ),
        (
            {
                "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
                "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: e",
            },
            {"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", "chosen": " d", "rejected": " e"},
        ),
        ({"chosen": "ba be da", "rejected": "ba be di"}, {"prompt": "ba be", "chosen": " da", "rejected": " di"}),
        ({"prompt": "ba ", "chosen": "ba da", "rejected": "ba di"}, {"prompt": "ba ", "chosen": "da", "rejected": "di"}),
        (
            {"instruction": "ba", "input": "be", "chosen": SAY, "rejected": WORSE},
            {"prompt": turns(("user", "ba\n\nbe")), "chosen": TALK[1:], "rejected": turns(("assistant", WORSE))},
        ),
        (
            {"prompt": ASK, "system": CALM, "chosen": SAY, "rejected": WORSE},
            {"prompt": turns(("system", CALM), ("user", ASK)), "chosen": TALK[1:], "rejected": turns(("assistant", WORSE))},
        ),
    ],
)  # fmt: skip
def test_pairs_under_other_names(row: Row, pair: Row) -> None:
    assert pair_row(row).row == pair
    assert pair_row(pair).row == pair


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"chosen": SAY, "rejected": WORSE}, "has no prompt: the two texts do not begin alike"),
        ({"chosen": TALK, "rejected": turns(("user", "bo"), ("assistant", WORSE))}, "do not begin alike and then differ"),
        ({"prompt": ASK, "chosen": SAY, "rejected": SAY}, "the same answer as chosen and rejected"),
        ({"prompt": ASK, "chosen": SAY, "rejected": " "}, "an empty rejected answer"),
        ({"prompt": " ", "chosen": SAY, "rejected": WORSE}, "has no prompt"),
        ({"prompt": ASK, "completion": SAY, "label": False}, "is a KTO row"),
        ({"prompt": ASK, "chosen": 1, "rejected": 2}, "`chosen` is a int"),
    ],
)
def test_what_is_no_pair_is_named(row: Row, words: str) -> None:
    with pytest.raises(BadRows, match=words):
        pair_row(row)


@pytest.mark.parametrize(
    "row",
    [
        {"question": ASK, "choices": [WORSE, SAY], "answer": 1},
        {"question": ASK, "choices": [WORSE, SAY], "answer": SAY},
        {"question": ASK, "choices": [WORSE, SAY], "answer": "B"},
        {"question": ASK, "choices": [WORSE, SAY], "answer": "1"},
        {"question": ASK, "choices": {"text": [WORSE, SAY], "label": ["A", "B"]}, "answerKey": "B"},
        {"question": ASK, "choices": {"text": [WORSE, SAY], "label": ["1", "2"]}, "answerKey": "2"},
        {"question": {"stem": ASK, "choices": [{"text": WORSE, "label": "A"}, {"text": SAY, "label": "B"}]}, "answerKey": "B"},
        {"question": ASK, "options": {"A": WORSE, "B": SAY}, "answer_idx": "B"},
        {"question": ASK, "options": [WORSE, SAY], "answer": "B"},
        {"question": ASK, "A": WORSE, "B": SAY, "answer": "B"},
        {"question": ASK, "choices": '["mu me", "da de di"]', "answer": "1"},
    ],
)
def test_choices_under_other_names(row: Row) -> None:
    assert choice_row(row).row == {"question": ASK, "choices": [WORSE, SAY], "answer": 1}
    with pytest.raises(BadRows, match="is a question with choices: give it to `mneme measure`"):
        text_row(row)


def test_a_letter_that_is_another_choice_is_not_guessed() -> None:
    with pytest.raises(BadRows, match="the text of one choice and the letter of another"):
        choice_row({"question": ASK, "choices": ["B", "A"], "answer": "A"})


def test_rows_of_one_form_are_told_with_their_columns() -> None:
    found = read_rows([{"instruction": ASK, "input": "", "output": SAY, "text": "x"}] * 3)
    assert found.told() == "the rows: 3 rows as instruction and output (instruction, input, output); not read: text."
    with pytest.raises(BadRows, match=r"row 3: is of another form \(texts\) than most rows \(messages\)"):
        read_rows([{"messages": TALK}] * 2 + [{"prompt": ASK, "completion": SAY}])
