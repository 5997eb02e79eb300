"""What templates want of messages is found by rendering, and given to them; whose template is used is chosen and said."""

import json
from pathlib import Path
from typing import Any

import pytest

from mneme.errors import BadOption, TemplateRefuses
from mneme.text.chat import chat_ids, render_chat, render_messages
from mneme.text.templates import read_template, template_facts
from tests.conftest import word_tokenizer

ROLES = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + ROLES
DROPPING = "{% for m in messages %}{% if m['role'] != 'system' %}<{{ m['role'] }}>{{ m['content'] }}{% endif %}{% endfor %}"
PARTS = "{% for m in messages %}<{{ m['role'] }}>{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}"
CALLS = ROLES.replace(
    "{% endfor %}", "{% for c in m.tool_calls or [] %}({{ c.function.arguments WAY }}){% endfor %}{% endfor %}"
)
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
SYSTEM, USER = {"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}
CALLING = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {"city": "Rome"}}}]}


def tokenizer_with(template: str | None) -> Any:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "messages", "text"),
    [
        (ROLES, [SYSTEM, USER], "<system>be kind<user>hello"),
        (REFUSING, [SYSTEM, USER], "<user>be kind\n\nhello"),
        (DROPPING, [SYSTEM, USER], "<user>be kind\n\nhello"),
        (DROPPING, [SYSTEM], "<user>be kind"),
        (REFUSING, [{"role": "system", "content": ""}, USER], "<user>hello"),
        (PARTS, [USER], "<user>hello"),
        (CALLS.replace("WAY", "| tojson"), [USER, CALLING], '<user>hello<assistant>({"city": "Rome"})'),
        (CALLS.replace("WAY", ""), [USER, CALLING], '<user>hello<assistant>({"city": "Rome"})'),
    ],
)
def test_messages_are_given_as_the_template_takes_them(template: str, messages: list[dict[str, Any]], text: str) -> None:
    assert render_chat(messages, tokenizer_with(template)) == text


def test_a_template_that_takes_nothing_refuses() -> None:
    with pytest.raises(TemplateRefuses, match="--chat-template"):
        render_chat([USER], tokenizer_with("{{ raise_exception('no') }}"))


def test_what_a_template_leaves_out_is_said() -> None:
    rows = [{"messages": [SYSTEM, USER, CALLING], "tools": TOOLS}]
    told = " ".join(template_facts(tokenizer_with(DROPPING), rows))
    for words in ("no system turns", "does not write `tools`", "does not write calls of tools"):
        assert words in told
    whole = "{{ tools | tojson }}" + CALLS.replace("WAY", "| tojson")
    assert template_facts(tokenizer_with(whole), rows) == ()
    assert template_facts(tokenizer_with(None), rows) == ()


def test_the_token_of_the_beginning_is_never_doubled() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_with("{{ bos_token }} " + ROLES.replace("<", " ").replace(">", " "))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    talk = [{"role": "user", "content": "ba be"}, {"role": "assistant", "content": "bi"}]
    for ids in (chat_ids(talk, tokenizer), tokenizer(render_messages(talk, tokenizer))["input_ids"]):
        assert list(ids).count(2) == 1
        assert ids[0] == 2


def test_a_template_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.jinja").write_text(ROLES)
    (tmp_path / "b.json").write_text(json.dumps({"chat_template": ROLES}))
    assert read_template(tmp_path / "a.jinja") == read_template(tmp_path / "b.json") == ROLES
    (tmp_path / "c.jinja").write_text(" ")
    for name in ("c.jinja", "none.jinja"):
        with pytest.raises(BadOption, match=r"--chat-template .* Give a file"):
            read_template(tmp_path / name)
