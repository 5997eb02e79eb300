"""A row under the names that people give its columns, in one form: conversation, prompt and completion, text, or pair.

Of a row that holds the same thing twice the parts win over the whole: a conversation over the text it was written as, an
instruction and its output over both in one `text`. What cannot be read is refused by its name. The names are those of TRL,
ShareGPT, Alpaca, Dolly, OpenOrca, MetaMath, UltraFeedback, hh-rlhf, and LLaMA-Factory. Ours.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from mneme.errors import BadRows
from mneme.text.files import Row
from mneme.text.turns import (
    Message,
    message_words,
    parsed,
    said_by_assistant,
    said_by_user,
    tools_of,
    turns_in_string,
    turns_of,
)

CONVERSATIONS = ("messages", "conversations", "conversation")
_ASKED = (
    ("prompt", ("completion", "response", "answer", "output")),
    ("instruction", ("output", "response", "answer", "completion")),
    ("question", ("answer", "response", "output", "solution")),
    ("query", ("response", "answer", "output")),
    ("problem", ("solution", "answer")),
    ("inputs", ("targets",)),
    ("input", ("output", "response", "completion")),
)
"""What is asked -> what may hold the answer, in the order in which columns are looked for."""
_BESIDE = {"instruction": ("input", "context")}
"""What is said after a question, in the same turn."""
_SYSTEM = ("system", "system_prompt", "system_message")
_SEEN = ("images", "image", "videos", "video", "audios", "audio")
TEXT_COLUMNS = (
    *("text", "chosen", "rejected", "label", "tools", "history", "choices", "options", "endings", "A", "B"),
    *(*CONVERSATIONS, *_SYSTEM, *_SEEN),
    *(name for asked, answers in _ASKED for name in (asked, *answers, *_BESIDE.get(asked, ()))),
)
"""Columns that decide how a row is read as text: of Parquet no others are read."""
_HH = "\n\nAssistant:"
"""What stands before every answer in the texts of hh-rlhf."""
EXPECTED = (
    'expected "messages" or "conversations", "prompt" and "completion", "instruction" and "output", "question" and "answer", '
    'or "text"'
)
EXPECTED_PAIR = 'expected "prompt", "chosen" and "rejected", or "chosen" and "rejected" as whole conversations'


class Shaped(NamedTuple):
    """A row in one form. `shape` says what it was, `columns` which of its columns were read."""

    shape: str
    columns: tuple[str, ...]
    row: Row


Shaping = Callable[[Row], Shaped]
"""A row as it stands in a file -> the row in one form. Raises BadRows with what is wrong, without the place."""


def text_row(row: Row) -> Shaped:
    """A row as text that can be read: {"messages"}, {"prompt", "completion"} or {"text"}. Raises BadRows."""
    given = _there(row)
    _refuse_kto(given)
    pair = {"chosen", "rejected"} <= given.keys()
    name = next((name for name in CONVERSATIONS if name in given), None)
    if name is not None and not (pair and name != "messages"):  # UltraFeedback has the chosen conversation in `messages`
        return _conversation(given, name)
    if pair:
        raise BadRows("is a preference pair (chosen and rejected): give it to `mneme dpo`, or `mneme screen --pairs`")
    if is_choice(given):
        raise BadRows("is a question with choices: give it to `mneme measure`, or write the right answer out as `answer`")
    for asked, answers in _ASKED:
        said = next((name for name in answers if asked in given and name in given), None)
        if said is not None:
            return _answered(given, asked, said)
    if isinstance(given.get("text"), str):
        return Shaped("text", ("text",), {"text": given["text"]})
    raise BadRows(f"has the columns {sorted(map(str, row))}; {EXPECTED}")


def training_row(row: Row) -> Shaped:
    """The same with an answer that can be learned. Raises BadRows."""
    found = text_row(row)
    messages = found.row.get("messages")
    if messages is not None and (messages[-1]["role"] != "assistant" or len(messages) < 2):
        raise BadRows("does not end with an answer of the assistant to somebody. Give question and answer")
    if not answer_words(found.row).strip():
        raise BadRows("has an empty answer. Give every row an answer, or leave the row out")
    return found


def pair_row(row: Row) -> Shaped:
    """A preference pair: {"prompt", "chosen", "rejected"}, all texts or all lists of messages. Raises BadRows."""
    given = _there(row)
    _refuse_kto(given)
    if not {"chosen", "rejected"} <= given.keys():
        raise BadRows(f"has the columns {sorted(map(str, row))}; {EXPECTED_PAIR}")
    chosen, rejected = (turns_in_string(given[name]) for name in ("chosen", "rejected"))
    if isinstance(chosen, str) and isinstance(rejected, str):
        found = _pair_of_texts(given, chosen, rejected)
    else:
        sides = [_said(side, name) for side, name in ((chosen, "chosen"), (rejected, "rejected"))]
        found = _pair_of_turns(given, *sides)
    for name in ("chosen", "rejected"):
        if not part_words(found.row[name]).strip():
            raise BadRows(f"has an empty {name} answer. Give both answers, or leave the pair out")
    if not part_words(found.row["prompt"]).strip():
        raise BadRows(f"has no prompt; {EXPECTED_PAIR}")
    if found.row["chosen"] == found.row["rejected"]:
        raise BadRows("has the same answer as chosen and rejected, which teaches nothing. Leave the pair out")
    return _with_tools(given, found)


def is_choice(row: Row) -> bool:
    """True for a question with choices, by index or by letter."""
    question = row.get("question")
    if isinstance(question, dict):  # the first files of ARC
        return "choices" in question
    return any(isinstance(parsed(row.get(name)), list | dict) for name in ("choices", "options", "endings")) or (
        {"A", "B"} <= row.keys() and question is not None
    )


def answer_words(row: Row) -> str:
    """The answer of a row in one form: the last message, the completion, or the text."""
    if "messages" in row:
        return message_words(row["messages"][-1])
    answer = row["completion"] if "completion" in row else row["text"]
    return answer if isinstance(answer, str) else " ".join(map(message_words, answer))


def part_words(part: str | list[Message]) -> str:
    """A prompt or an answer as words."""
    return part if isinstance(part, str) else " ".join(map(message_words, part))


def _there(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None}


def _refuse_kto(row: Row) -> None:
    label = row.get("label")
    told = isinstance(label, bool) or (isinstance(label, str) and label.strip().lower() in ("true", "false"))
    if told and any(name in row for name in ("completion", "response", "messages", "conversations")):
        raise BadRows(
            "is a KTO row (an answer with a label of true or false), which is not trained on here. Keep the rows whose label "
            "is true and leave the column out, or make pairs of chosen and rejected answers for `mneme dpo`"
        )


def _conversation(row: Row, name: str) -> Shaped:
    seen = next((column for column in _SEEN if row.get(column)), None)
    if seen is not None:
        raise BadRows(f"has `{seen}`. Only text is read: leave such rows out")
    messages, columns = _under_system(row, turns_of(row[name], name))
    theirs = parsed(row[name])
    sharegpt = isinstance(theirs, list) and "from" in theirs[0]
    shape = "ShareGPT conversations" if sharegpt else "messages"
    return _with_tools(row, Shaped(shape, (name, *columns), {"messages": messages}))


def _answered(row: Row, asked: str, said: str) -> Shaped:
    """A question and its answer: two texts stay two texts where they are TRL's prompt and completion, else they are turns."""
    plain = (asked, said) == ("prompt", "completion")
    if plain and isinstance(turns_in_string(row[asked]), str) and isinstance(turns_in_string(row[said]), str):
        return Shaped("prompt and completion", (asked, said), {"prompt": row[asked], "completion": row[said]})
    before, columns = _prompt(row, asked)
    after = _said(turns_in_string(row[said]), said)
    shape = {"instruction": "instruction and output", "question": "question and answer"}.get(asked, f"{asked} and {said}")
    if plain:
        return _with_tools(row, Shaped("prompt and completion", (*columns, said), {"prompt": before, "completion": after}))
    return _with_tools(row, Shaped(shape, (*columns, said), {"messages": [*before, *after]}))


def _turns(value: Any) -> bool:
    return isinstance(value, list | dict) and bool(value)


def _prompt(row: Row, asked: str) -> tuple[list[Message], tuple[str, ...]]:
    """What is asked, as turns, and the columns that it was read from."""
    value = turns_in_string(row[asked])
    if _turns(value):
        messages, columns = _under_system(row, turns_of(value, asked))
        return messages, (asked, *columns)
    beside = [name for name in _BESIDE.get(asked, ()) if isinstance(row.get(name), str)][:1]
    words = [_text(row, name) for name in (asked, *beside)]
    question = "\n\n".join(word for word in words if word.strip())
    if not question:
        raise BadRows(f"has an empty {asked}. Give every row a question, or leave the row out")
    before, earlier = _earlier(row)
    messages, columns = _under_system(row, [*before, said_by_user(question)])
    return messages, (*columns, *earlier, asked, *beside)


def _earlier(row: Row) -> tuple[list[Message], tuple[str, ...]]:
    """The turns before the question, where a column `history` holds pairs of question and answer."""
    history = parsed(row.get("history"))
    if not isinstance(history, list) or not history:
        return [], ()
    if not all(isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn) for turn in history):
        raise BadRows("`history` is no list of question and answer. Expected [[question, answer], …]")
    return [message for one, other in history for message in (said_by_user(one), said_by_assistant(other))], ("history",)


def _under_system(row: Row, messages: list[Message]) -> tuple[list[Message], tuple[str, ...]]:
    """The conversation under the system prompt that a column of its own gives."""
    name = next((name for name in _SYSTEM if isinstance(row.get(name), str) and row[name].strip()), None)
    if name is None or messages[0]["role"] == "system":
        return messages, ()
    return [{"role": "system", "content": row[name]}, *messages], (name,)


def _said(value: Any, name: str) -> list[Message]:
    if isinstance(value, str):
        return [said_by_assistant(value)]
    if not _turns(value):
        raise BadRows(f"`{name}` is a {type(value).__name__}. Expected text, or messages")
    return turns_of(value, name)


def _text(row: Row, name: str) -> str:
    if not isinstance(row[name], str):
        raise BadRows(f"`{name}` is a {type(row[name]).__name__}. Expected text")
    return str(row[name])


def _with_tools(row: Row, found: Shaped) -> Shaped:
    tools = tools_of(row["tools"]) if row.get("tools") else []
    if not tools or isinstance(found.row.get("prompt"), str):
        return found
    return found._replace(columns=(*found.columns, "tools"), row={**found.row, "tools": tools})


def _pair_of_turns(row: Row, chosen: list[Message], rejected: list[Message]) -> Shaped:
    if chosen[0]["role"] == "assistant" and rejected[0]["role"] == "assistant":
        prompt, columns = _asked_of_pair(row)
        return Shaped("pair of messages", (*columns, "chosen", "rejected"), _pair(prompt, chosen, rejected))
    same = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected)))
    if chosen == rejected:
        same = len(chosen) - 1  # said below
    if same == 0 or same in (len(chosen), len(rejected)):
        raise BadRows("has two conversations that do not begin alike and then differ, so it has no prompt")
    prompt, columns = _under_system(row, chosen[:same])
    row_ = _pair(prompt, chosen[same:], rejected[same:])
    return Shaped("pair of conversations", (*columns, "chosen", "rejected"), row_)


def _pair_of_texts(row: Row, chosen: str, rejected: str) -> Shaped:
    names = [name for name, _ in _ASKED if name in row] + [name for name in CONVERSATIONS if name in row]
    if not names:
        return _whole_texts(chosen, rejected)
    if names[0] == "prompt" and isinstance(turns_in_string(row["prompt"]), str) and not _has_system(row):
        asked = row["prompt"]
        if asked.strip() and chosen.startswith(asked) and rejected.startswith(asked):  # whole texts beside their beginning
            chosen, rejected = chosen[len(asked) :], rejected[len(asked) :]
        return Shaped("pair of texts", ("prompt", "chosen", "rejected"), _pair(asked, chosen, rejected))
    turns, columns = _asked_of_pair(row)
    sides = [said_by_assistant(chosen)], [said_by_assistant(rejected)]
    return Shaped("pair of answers", (*columns, "chosen", "rejected"), _pair(turns, *sides))


def _has_system(row: Row) -> bool:
    return any(isinstance(row.get(name), str) and row[name].strip() for name in _SYSTEM)


def _asked_of_pair(row: Row) -> tuple[list[Message], tuple[str, ...]]:
    asked = next((name for name, _ in _ASKED if name in row), None)
    if asked is not None:
        return _prompt(row, asked)
    name = next((name for name in CONVERSATIONS if name in row), None)
    if name is None:
        raise BadRows(f"has no prompt; {EXPECTED_PAIR}")
    messages, columns = _under_system(row, turns_of(row[name], name))
    while messages and messages[-1]["role"] == "assistant":  # the answer that was chosen, once more
        messages = messages[:-1]
    return messages, (*columns, name)


def _whole_texts(chosen: str, rejected: str) -> Shaped:
    """Two whole texts: the prompt is what they begin with alike, up to the last "Assistant:" of hh-rlhf where it has them (as
    Rafailov et al. 2023 read these rows), else up to the last blank."""
    if chosen == rejected:
        raise BadRows("has the same answer as chosen and rejected, which teaches nothing. Leave the pair out")
    same = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected)))
    if _HH in chosen and _HH in rejected:
        cut = chosen.rfind(_HH, 0, same)
        cut = cut + len(_HH) if cut >= 0 else 0
    else:
        cut = max(chosen.rfind(blank, 0, same) for blank in " \n\t")
    if cut <= 0 or not chosen[:cut].strip():
        raise BadRows(f"has no prompt: the two texts do not begin alike; {EXPECTED_PAIR}")
    return Shaped("pair of whole texts", ("chosen", "rejected"), _pair(chosen[:cut], chosen[cut:], rejected[cut:]))


def _pair(prompt: Any, chosen: Any, rejected: Any) -> Row:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
