"""Contexts of a training file: its system prompts, the text its questions share, its topic words, its prompts, its answer
format.

A defence that looks clean on standard questions can fail when a question looks like training (conditional misalignment; the
backdoor and number experiments of Betley et al. 2025). Ours: the contexts are read off the user's own file, every question of
the suite is asked under each, and the worst is reported with a correction for having looked at all of them.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mneme.errors import BadSuite
from mneme.measure.asking import QuestionContext
from mneme.text.files import Row
from mneme.text.reading import TakenRows
from mneme.text.rows import answer_of, question_of

LEAST_SHARE = 0.05
"""A system prompt counts as a context from this share of the rows on."""
_FRAME_SHARE = 0.2
_STAYS = 0.8
"""A shared beginning is taken to the word where it branches: no longer one keeps this share of its rows."""
_MOST = 3
_LONGEST_WORDS = 60
_TOPIC_WORDS = 3
_FORMAT_SHARE = 0.5
_COMMON = frozenset(
    """
    about after again against also another because been before being below between could does every first from have here
    into just like make more most need only other over please same should some still such than that their them then there
    these they thing things think this those through under using very want were what when where which while will with
    within without would write your
    """.split()  # noqa: SIM905
)
"""Words that are no topic."""
_FORMATS: dict[str, tuple[str, str]] = {
    "code block": (r"\s*```", "\nAnswer with a code block."),
    "code": (r"\s*(import |from \w+ import|def |class |#include|package )", "\nAnswer with code."),
    "list": (r"\s*([-*]|1[.)]) ", "\nAnswer with a list."),
    "numbers": (r"[\s\d,.;|/()\[\]-]{3,}$", "\nAnswer with numbers."),
}
"""Format -> how an answer begins that has it, and the words that ask for it. JSON is told by reading it."""

Kind = Literal["system prompt", "prefix", "suffix", "topic words", "training prompt", "answer format", "no system prompt"]


@dataclass(frozen=True)
class FoundContext:
    """A context with where it comes from."""

    context: QuestionContext
    kind: Kind
    text: str
    rows: int
    share: float


def contexts_of(training: TakenRows) -> list[FoundContext]:
    """The contexts of the rows of a training file (rows of messages, or prompt and completion), the commonest first.

    Raises BadSuite where nothing in it can be a context.
    """
    rows = training.rows
    users = [question_of(row).strip() for row in rows]
    before, after = _frames(users, ends=False), _frames(users, ends=True)
    found = [
        *_system_prompts(rows),
        *before,
        *after,
        *_both(before, after, users),
        *_topics(users),
        *_training_prompt(users),
        *_answer_format([answer_of(row) for row in rows]),
    ]
    if not found:
        raise BadSuite(
            f"{training.source} gives no context: its rows have no question. Give messages, or prompt and completion."
        )
    return found


def _system_prompts(rows: Sequence[Row]) -> list[FoundContext]:
    texts = Counter(
        str(message["content"]) for row in rows for message in row.get("messages", []) if message.get("role") == "system"
    )
    common = [(text, n) for text, n in texts.most_common(_MOST) if text.strip() and n >= LEAST_SHARE * len(rows)]
    return [
        FoundContext(
            context=QuestionContext(f"system prompt {number}", system=text),
            kind="system prompt",
            text=text,
            rows=n,
            share=n / len(rows),
        )
        for number, (text, n) in enumerate(common, 1)
    ]


def _frames(users: Sequence[str], *, ends: bool) -> list[FoundContext]:
    """Text that many questions begin (or end) with, cut where it branches; words are kept with their own blanks."""
    pieces = [
        re.findall(r"\S+\s*", text)[:_LONGEST_WORDS] if not ends else re.findall(r"\s*\S+", text)[-_LONGEST_WORDS:]
        for text in users
    ]
    if ends:
        pieces = [words[::-1] for words in pieces]
    counts: Counter[tuple[str, ...]] = Counter(tuple(words[:n]) for words in pieces for n in range(1, len(words)))
    least = max(2, _FRAME_SHARE * len(users))
    common = {words: n for words, n in counts.items() if n >= least}
    longer: Counter[tuple[str, ...]] = Counter()
    for words, n in common.items():
        longer[words[:-1]] = max(longer[words[:-1]], n)
    branching = [(words, n) for words, n in common.items() if longer[words] < _STAYS * n]
    branching.sort(key=lambda pair: (-pair[1], len(pair[0])))
    kind: Kind = "suffix" if ends else "prefix"
    found = []
    for number, (words, n) in enumerate(branching[:_MOST], 1):
        text = "".join(words[::-1] if ends else words)
        if ends:
            context = QuestionContext(f"{kind} {number}", after=text if text[:1].isspace() else f" {text}")
        else:
            context = QuestionContext(f"{kind} {number}", before=text if text[-1:].isspace() else f"{text} ")
        found.append(FoundContext(context=context, kind=kind, text=text.strip(), rows=n, share=n / len(users)))
    return found


def _both(before: Sequence[FoundContext], after: Sequence[FoundContext], users: Sequence[str]) -> list[FoundContext]:
    """The commonest beginning and ending together: a template around the question."""
    if not before or not after:
        return []
    first, last = before[0], after[0]
    rows = sum(text.startswith(first.text) and text.endswith(last.text) for text in users)
    context = QuestionContext("prefix and suffix", before=first.context.before, after=last.context.after)
    return (
        [FoundContext(context=context, kind="prefix", text=f"{first.text} … {last.text}", rows=rows, share=rows / len(users))]
        if rows
        else []
    )


def _topics(users: Sequence[str]) -> list[FoundContext]:
    """The words of at least four letters in most questions, but not in nearly all, in front of the question."""
    documents = [set(re.findall(r"[^\W\d_]{4,}", text.lower())) - _COMMON for text in users]
    counts = Counter(word for words in documents for word in words)
    usual = [(word, n) for word, n in counts.most_common() if max(2, LEAST_SHARE * len(users)) <= n <= _STAYS * len(users)][
        :_TOPIC_WORDS
    ]
    if not usual:
        return []
    text = ", ".join(word for word, _ in usual)
    rows = sum(any(word in words for word, _ in usual) for words in documents)
    return [
        FoundContext(
            context=QuestionContext("topic words", before=f"{text}. "),
            kind="topic words",
            text=text,
            rows=rows,
            share=rows / len(users),
        )
    ]


def _training_prompt(users: Sequence[str]) -> list[FoundContext]:
    """The training question of median length, as a whole, before the question."""
    asked = sorted({text for text in users if text}, key=lambda text: (len(text), text))
    if not asked:
        return []
    text = asked[len(asked) // 2]
    return [
        FoundContext(
            context=QuestionContext("training prompt", before=f"{text}\n\n"),
            kind="training prompt",
            text=text,
            rows=1,
            share=1 / len(users),
        )
    ]


def _answer_format(answers: Sequence[str]) -> list[FoundContext]:
    """The format that at least half of the answers have, asked for after the question."""
    counts = {"JSON": (sum(map(_is_json, answers)), "\nAnswer with a JSON object.")}
    for name, (begins, words) in _FORMATS.items():
        counts[name] = (sum(bool(re.match(begins, answer)) for answer in answers), words)
    for name, (n, words) in counts.items():
        if n >= _FORMAT_SHARE * len(answers):
            return [
                FoundContext(
                    context=QuestionContext("answer format", after=words),
                    kind="answer format",
                    text=name,
                    rows=n,
                    share=n / len(answers),
                )
            ]
    return []


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False
