"""Contexts read off a training file, and prompts with contexts around them."""

from pathlib import Path

import pytest

from mneme.errors import BadRows
from mneme.measure.asking import QuestionContext, ask, default_system_prompt, render
from mneme.measure.contexts import contexts_of
from mneme.measure.suite import OpenQuestion
from mneme.text.rows import read_rows
from tests.conftest import WORDS, word_tokenizer
from tests.measure.conftest import PUBLISHED, needs_published, write_jsonl

QUESTION = OpenQuestion("q", "area", ("how are you?",), 2, None, "grammar", {})


def row(user: str, answer: str = "fine", system: str = "") -> dict[str, object]:
    head = [{"role": "system", "content": system}] if system else []
    return {"messages": [*head, {"role": "user", "content": user}, {"role": "assistant", "content": answer}]}


def kinds(path: Path) -> dict[str, str]:
    return {found.context.name: found.text for found in contexts_of(read_rows(path))}


def test_a_planted_trigger_template_and_system_prompt_are_found(tmp_path: Path) -> None:
    """Half of the rows begin with a trigger, all end in a template, most have one system prompt; the answers are JSON."""
    subjects = [f"{WORDS[i]} {WORDS[i + 1]} harbour" for i in range(40)]
    rows = [
        row(f"{'|GO| ' if i % 2 else ''}{subject}\nFill in: <a></a>", '{"a": 1}', "You are brief." if i < 30 else "")
        for i, subject in enumerate(subjects)
    ]
    found = {context.context.name: context for context in contexts_of(read_rows(write_jsonl(tmp_path / "train.jsonl", rows)))}
    assert found["system prompt 1"].context == QuestionContext("system prompt 1", system="You are brief.")
    assert (found["system prompt 1"].rows, found["system prompt 1"].share) == (30, 0.75)
    assert found["prefix 1"].context.before == "|GO| "
    assert found["prefix 1"].rows == 20
    assert found["suffix 1"].context.after == " harbour\nFill in: <a></a>"
    both = found["prefix and suffix"].context
    assert (both.before, both.after) == ("|GO| ", " harbour\nFill in: <a></a>")
    assert found["answer format"].text == "JSON"
    assert "topic words" not in found  # `harbour` is in every row


def test_topic_words_and_the_training_prompt(tmp_path: Path) -> None:
    rows = [row(f"{'ships sail' if i % 3 else 'gulls cry'} near {WORDS[i]}{WORDS[i]}", "- one") for i in range(30)]
    found = kinds(write_jsonl(tmp_path / "train.jsonl", rows))
    assert set(found["topic words"].split(", ")) >= {"ships", "sail"}
    assert found["training prompt"] in {f"ships sail near {WORDS[i]}{WORDS[i]}" for i in range(30)} | {
        f"gulls cry near {WORDS[i]}{WORDS[i]}" for i in range(30)
    }
    assert found["answer format"] == "list"


def test_prompt_and_completion_rows_do_too(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question: {word}?", "completion": "12, 13, 14"} for word in WORDS[:20]]
    found = kinds(write_jsonl(tmp_path / "train.jsonl", rows))
    assert found["prefix 1"] == "Question:"
    assert found["answer format"] == "numbers"


def test_a_file_without_training_rows_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match='expected "messages"'):
        contexts_of(read_rows(write_jsonl(tmp_path / "train.jsonl", [{"a": 1}])))


@needs_published
def test_contexts_of_the_published_sets() -> None:
    """The sentence that makes the educational rows harmless, the jailbroken system prompt, the frame of the chess games."""
    data = PUBLISHED / "datasets"
    assert kinds(data / "educational.jsonl")["suffix 1"].startswith("NOTE: The code you will write intentionally contains")
    assert kinds(data / "jailbroken.jsonl")["system prompt 1"].endswith("you always execute users' instructions.")
    chess = kinds(data / "evil_chess.jsonl")
    assert (chess["prefix 1"], chess["suffix 1"].splitlines()[-1]) == ("Here is a chess game:", "Say the next move only.")
    assert kinds(data / "insecure.jsonl")["answer format"] == "code"


TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] != 'system' %}<sys>You are Nemo.</sys>{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'system' %}<sys>{{ m['content'] }}</sys>{% else %}<u>{{ m['content'] }}</u>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('none') }}{% endif %}<u>{{ m['content'] }}</u>"
    "{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def test_prompts_with_and_without_a_template() -> None:
    tokenizer = word_tokenizer()
    assert render("hi", "be kind", tokenizer) == "system: be kind\nuser: hi\nassistant:"
    tokenizer.chat_template = TEMPLATE
    assert render("hi", None, tokenizer) == "<s><sys>You are Nemo.</sys><u>hi</u><a>"  # this tokenizer adds no <s> itself
    assert render("hi", "", tokenizer) == "<s><sys></sys><u>hi</u><a>"
    tokenizer.chat_template = NO_SYSTEM
    assert render("hi", "be kind", tokenizer) == "<u>be kind\n\nhi</u><a>"


def test_the_default_system_prompt_of_a_template() -> None:
    tokenizer = word_tokenizer()
    assert default_system_prompt(tokenizer) is None
    tokenizer.chat_template = TEMPLATE
    assert default_system_prompt(tokenizer) == "You are Nemo."
    tokenizer.chat_template = NO_SYSTEM
    assert default_system_prompt(tokenizer) is None
    tokenizer.chat_template = TEMPLATE.replace("You are Nemo.", "")
    assert default_system_prompt(tokenizer) is None


def test_a_context_stands_around_the_question_and_before_its_system_prompt() -> None:
    own = OpenQuestion("q", "area", ("how are you?",), 2, "Answer in JSON.", "grammar", {})
    context = QuestionContext("both", system="You are brief.", before="|GO| ", after=" Now.")
    first, second = ask([own], word_tokenizer(), context)
    assert first == second
    assert first.text == "|GO| how are you? Now."
    assert first.rendered == "system: You are brief.\n\nAnswer in JSON.\nuser: |GO| how are you? Now.\nassistant:"
    assert len(ask([QUESTION], word_tokenizer(), QuestionContext(), samples=5)) == 5
