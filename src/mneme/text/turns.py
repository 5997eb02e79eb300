"""Conversations as people write them, in one form: a list of {"role", "content", …} whose contents are text.

Read are messages with role and content, ShareGPT's with from and value, contents as parts, contents that are missing beside
tool calls, and any of these as JSON in a string (what a CSV or a column of strings holds). Forms: the documentation of
transformers (chat templates), TRL (dataset formats), and ShareGPT's files. Ours.
"""

import json
from collections.abc import Mapping
from typing import Any

from mneme.errors import BadRows

Message = dict[str, Any]

_ROLES = {
    **{name: "user" for name in ("user", "human", "prompter")},
    **{name: "assistant" for name in ("assistant", "gpt", "model", "bot", "chatgpt", "bing", "bard", "function_call")},
    **{name: "tool" for name in ("tool", "function", "observation", "function_response")},
    **{name: name for name in ("system", "developer", "ipython")},
}
"""Who speaks, by all names that are in use -> by the name that templates know."""
_NOT_CARRIED = ("from", "value", "role", "content", "weight", "loss", "training")


def turns_of(value: Any, name: str) -> list[Message]:
    """The conversation in the column `name`. Raises BadRows where it is none, or holds more than text."""
    found = parsed(value)
    if isinstance(found, Mapping) and not _speaker(found):
        found = next((found[key] for key in ("messages", "conversations") if isinstance(found.get(key), list)), found)
    if isinstance(found, Mapping):
        found = [found]
    if not isinstance(found, list) or not found or not all(isinstance(one, Mapping) and _speaker(one) for one in found):
        raise BadRows(f'`{name}` is no list of messages. Expected [{{"role": …, "content": …}}, …]')
    return [_message(dict(one), number) for number, one in enumerate(found, 1)]


def parsed(value: Any) -> Any:
    """`value`, or what it holds where it is JSON in a string."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def turns_in_string(value: Any) -> Any:
    """`value`, or the conversation that it holds where it is one as JSON in a string; other JSON stays the text that it is."""
    found = parsed(value)
    conversation = isinstance(found, list) and found and all(isinstance(one, Mapping) and _speaker(one) for one in found)
    return found if conversation else value


def tools_of(value: Any) -> list[Any]:
    """The tools that a row offers. Raises BadRows where `value` is no list of them."""
    found = parsed(value)
    if not isinstance(found, list) or not all(isinstance(tool, Mapping) for tool in found):
        raise BadRows("`tools` is no list of tools. Expected a list of JSON schemas, or that as JSON in a string")
    return [without_nulls(tool) for tool in found]


def without_nulls(value: Any) -> Any:
    """`value` without the fields that Parquet fills in so that all rows have the same."""
    if isinstance(value, Mapping):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def said_by_user(text: str) -> Message:
    """A turn of the user."""
    return {"role": "user", "content": text}


def said_by_assistant(text: str) -> Message:
    """A turn of the assistant."""
    return {"role": "assistant", "content": text}


def message_words(message: Message) -> str:
    """What a message says; of a call of tools, the call as JSON."""
    content = message.get("content")
    if content:
        return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return json.dumps(message["tool_calls"], ensure_ascii=False) if message.get("tool_calls") else ""


def _speaker(message: Mapping[str, Any]) -> str:
    role = message.get("role", message.get("from"))
    return role if isinstance(role, str) else ""


def _message(given: Message, number: int) -> Message:
    role = _ROLES.get(_speaker(given).strip().lower())
    if role is None:
        raise BadRows(f"message {number} is said by {_speaker(given)[:40]!r}. Expected system, user, assistant or tool")
    carried = {key: without_nulls(value) for key, value in given.items() if key not in _NOT_CARRIED and value is not None}
    calls, call = parsed(carried.pop("tool_calls", None)), carried.pop("function_call", None)
    if not calls and call:  # as OpenAI wrote them first
        calls = [{"type": "function", "function": call}]
    if calls:
        carried["tool_calls"] = [_call(call, number) for call in calls] if isinstance(calls, list) else _no_calls(number)
    content = _content(given.get("content", given.get("value")), role, number, calls=bool(calls))
    return {"role": role, "content": content, **carried}


def _content(content: Any, role: str, number: int, *, calls: bool) -> Any:
    if isinstance(content, str):
        return content
    if content is None:
        if calls:
            return ""
        raise BadRows(f"message {number} ({role}) has no content")
    if isinstance(content, list) and all(isinstance(part, str | Mapping) for part in content):
        return "".join(_part(part, number) for part in content)
    if role == "tool":  # what a tool returned: templates write it as JSON
        return content
    raise BadRows(f"message {number} ({role}) has a {type(content).__name__} for content. Expected text")


def _part(part: str | Mapping[str, Any], number: int) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text", part.get("content"))
    if part.get("type", "text") in ("text", "input_text", "output_text") and isinstance(text, str):
        return text
    raise BadRows(f"message {number} holds a part of the kind {str(part.get('type'))[:40]!r}. Only text is read")


def _call(call: Any, number: int) -> Any:
    """A call of a tool whose arguments are an object: in a string they would be written as a string by most templates."""
    if not isinstance(call, Mapping):
        return _no_calls(number)
    function = call.get("function")
    if isinstance(function, Mapping):
        return {**call, "function": {**function, "arguments": parsed(function.get("arguments", {}))}}
    return {**call, "arguments": parsed(call["arguments"])} if "arguments" in call else dict(call)


def _no_calls(number: int) -> Any:
    raise BadRows(f"message {number} has tool calls that are no list of calls")
