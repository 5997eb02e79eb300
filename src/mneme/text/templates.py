"""What a chat template does with system turns, contents and calls of tools, found by probes; and messages in its form.

Templates are programs of strangers: some refuse a system turn, some drop it without a word, some read a content only as a list
of parts, some write the arguments of a call as they are and some as JSON. What each wants is seen in what it writes. Ours.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from mneme.confined import Refused, confined
from mneme.errors import BadOption, BadRows, one_line
from mneme.text.files import text_of
from mneme.text.turns import Message, parsed

_MARK = "zqxprobezqx"
"""A word that no template writes of its own."""
_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names under which a message's reasoning is given; templates read the first or the second."""
_USER = {"role": "user", "content": "hello"}


def read_template(file: str | Path) -> str:
    """The chat template in a file: Jinja, or a JSON object that holds one as `chat_template`. Raises BadOption."""
    try:
        text = text_of(Path(file))
    except (OSError, BadRows) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise BadOption(f"--chat-template {file} cannot be read ({reason}). Give a file that holds a template.") from error
    found = parsed(text)
    if isinstance(found, dict) and isinstance(found.get("chat_template"), str):
        return str(found["chat_template"])
    if not text.strip():
        raise BadOption(f"--chat-template {file} is empty. Give a file that holds a template.")
    return text


def template_key(file: str | Path | None) -> dict[str, str]:
    """What a run's key holds of a template that was given: its text, whatever the file says later."""
    return {} if file is None else {"chat_template_is": hashlib.sha256(read_template(file).encode()).hexdigest()}


def fill_template(template: str, special: dict[str, Any], messages: Sequence[Message], **variables: Any) -> str:
    """The text that a template writes, in the confined process. Raises Exceeded, Refused or ValueError."""
    whole = {**special, "messages": list(messages), "tools": None, "documents": None, "add_generation_prompt": False}
    return str(confined("render", template=template, variables=whole | variables))


def suited(messages: Sequence[Message], template: str, special: dict[str, Any]) -> list[Message]:
    """The messages as this template takes them: a system turn it has no place for in front of the first question, contents as
    parts where it reads only these, arguments of calls as text where it would write them in Python's spelling."""
    kept = _kept(special)
    fitting = [_with_reasoning(message) for message in messages]
    if any("tool_calls" in message for message in fitting) and calls_written(template, kept) == "text":
        fitting = [_arguments_as_text(message) for message in fitting]
    if fitting and fitting[0]["role"] == "system" and not system_written(template, kept):
        fitting = folded(fitting)
    if not _text_read(template, kept):
        fitting = [_as_parts(message) for message in fitting]
    return fitting


def template_facts(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What the tokenizer's template does otherwise than these rows ask (system turns, tools, calls), a sentence each."""
    if not tokenizer.chat_template:
        return ()
    kept = _kept(tokenizer.special_tokens_map)
    offered = [row["tools"] for row in rows if row.get("tools")]
    template = tokenizer.get_chat_template(tools=offered[0] if offered else None)
    said = [message for row in rows for name in ("messages", "prompt", "completion") for message in _messages(row.get(name))]
    notes = []
    if any(message["role"] == "system" for message in said) and not system_written(template, kept):
        notes.append("The chat template has no system turns: the system prompt is written in front of the first question.")
    if offered and not tools_written(template, kept):
        notes.append("The chat template does not write `tools`: what is read and learned does not name them.")
    if any("tool_calls" in message for message in said) and calls_written(template, kept) == "dropped":
        notes.append("The chat template does not write calls of tools: what is read and learned lacks them.")
    return tuple(notes)


def writes_calls(tokenizer: PreTrainedTokenizerBase, tools: Sequence[Any] | None = None) -> bool:
    """True where the tokenizer's template writes calls of tools."""
    template = tokenizer.get_chat_template(tools=list(tools) if tools else None)
    return calls_written(template, _kept(tokenizer.special_tokens_map)) != "dropped"


def _messages(part: Any) -> list[Message]:
    return part if isinstance(part, list) else []


def _kept(special: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in special.items() if isinstance(value, str)))


def folded(messages: Sequence[Message]) -> list[Message]:
    """The system turn in front of the first question, a blank line between them; alone it becomes the question."""
    system, rest = messages[0], list(messages[1:])
    if not rest or rest[0]["role"] != "user":
        return [{**system, "role": "user"}, *rest] if system["content"] else rest
    told = "\n\n".join(part for part in (system["content"], rest[0]["content"]) if part)
    return [{**rest[0], "content": told}, *rest[1:]]


@lru_cache(maxsize=32)
def system_written(template: str, special: tuple[tuple[str, str], ...]) -> bool:
    """False where the template refuses a system turn, or drops it."""
    return _MARK in _tried(template, special, [{"role": "system", "content": _MARK}, _USER])


@lru_cache(maxsize=32)
def tools_written(template: str, special: tuple[tuple[str, str], ...]) -> bool:
    """False where the template does not write the tools that a conversation offers."""
    parameters = {"type": "object", "properties": {"city": {"type": "string", "description": "where"}}, "required": ["city"]}
    function = {"name": _MARK, "description": "what it does", "parameters": parameters}
    return _MARK in _tried(template, special, [_USER], tools=[{"type": "function", "function": function}])


@lru_cache(maxsize=32)
def calls_written(template: str, special: tuple[tuple[str, str], ...]) -> Literal["object", "text", "dropped"]:
    """How the arguments of a call have to be given so that JSON is written; "dropped" where the template writes none."""
    forms: dict[Literal["object", "text"], Callable[[dict[str, str]], Any]] = {"object": dict, "text": json.dumps}
    found: Literal["object", "text", "dropped"] = "dropped"
    for form, given in forms.items():
        function = {"name": "look", "arguments": given({"city": _MARK})}
        call = {"id": "call00001", "type": "function", "function": function}
        asked: list[Message] = [_USER, {"role": "assistant", "content": "", "tool_calls": [call]}]
        done = [*asked, {"role": "tool", "content": "done", "tool_call_id": "call00001", "name": "look"}]
        text = _tried(template, special, asked) or _tried(template, special, done)
        if _MARK in text and f"'{_MARK}'" not in text and f'\\"{_MARK}' not in text:
            return form
        if _MARK in text:
            found = "object"
    return found


@lru_cache(maxsize=32)
def _text_read(template: str, special: tuple[tuple[str, str], ...]) -> bool:
    """False where the template reads contents as lists of parts only."""
    user = {"role": "user", "content": _MARK}
    return _MARK in _tried(template, special, [user]) or _MARK not in _tried(template, special, [_as_parts(user)])


def _tried(template: str, special: tuple[tuple[str, str], ...], messages: list[Message], **variables: Any) -> str:
    """What the template writes of a probe; nothing where it refuses it."""
    try:
        return fill_template(template, dict(special), messages, **variables)
    except (Refused, ValueError):
        return ""


def _as_parts(message: Message) -> Message:
    if not isinstance(message.get("content"), str):
        return message
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _arguments_as_text(message: Message) -> Message:
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        function = call.get("function")
        if isinstance(function, dict) and not isinstance(function.get("arguments"), str):
            function = {**function, "arguments": json.dumps(function.get("arguments"), ensure_ascii=False)}
        calls.append({**call, "function": function} if function else call)
    return {**message, "tool_calls": calls}


def _with_reasoning(message: Message) -> Message:
    """The message without empty fields, its reasoning under the names that templates read, as transformers gives it."""
    given = {key: value for key, value in message.items() if value is not None}
    reasoning = next((given[name] for name in _REASONING if name in given), None)
    return given if reasoning is None else {"thinking": reasoning, **given, "reasoning_content": reasoning}
