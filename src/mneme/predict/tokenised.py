"""Documents as tokens with their characters, whatever the tokenizer, and which of their turns count."""

import itertools
import re
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from mneme.errors import TemplateRefuses
from mneme.predict.items import Spans, TokenisedText
from mneme.text.chat import render_chat

_BATCH = 512
"""Texts that are given to a tokenizer at once: enough for its threads. A round number that was never varied."""
_USER, _ASSISTANT = "\ue000user\ue000", "\ue000assistant\ue000"
"""Characters of Unicode's private use area: no template writes them."""
_ROLES = re.compile(r"(?:^|(?<=\s))(system|user|assistant|tool):\s")
"""How mneme writes a conversation where a tokenizer has no chat template (`text.chat.render_messages`)."""


def tokenise(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int | None = None
) -> list[TokenisedText]:
    """The texts in order, as many as make `max_tokens` tokens (at least one). Special tokens that the tokenizer adds stand for
    no text. A tokenizer that gives no characters (slow) is asked for the text of every beginning instead."""
    counts = counted_turns(tokenizer)
    found: list[TokenisedText] = []
    n = 0
    for first in range(0, len(texts), _BATCH):
        batch = list(texts[first : first + _BATCH])
        coded = tokenizer(batch, return_offsets_mapping=tokenizer.is_fast, verbose=False, padding=False, truncation=False)
        for index, text in enumerate(batch):
            ids = list(coded["input_ids"][index])
            if not ids:
                continue
            spans = coded["offset_mapping"][index] if tokenizer.is_fast else _slow_spans(ids, text, tokenizer)
            found.append(TokenisedText(ids, text, _mended(spans), counts(text)))
            n += len(ids)
            if max_tokens is not None and n >= max_tokens:
                return found
    return found


def _mended(spans: Spans) -> list[tuple[int, int]]:
    """Spans in rising order: special tokens, which have (0, 0) wherever they stand, lie where the last token ended."""
    mended: list[tuple[int, int]] = []
    last = 0
    for a, b in spans:
        mended.append((last, last) if a == b else (a, b))
        last = mended[-1][1]
    return mended


def _slow_spans(ids: Sequence[int], text: str, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, int]]:
    """Characters of each token, from what the tokens before it decode to; none where that is not how the text begins."""
    spans: list[tuple[int, int]] = []
    last = 0
    for place in range(1, len(ids) + 1):
        said = str(tokenizer.decode(ids[:place], skip_special_tokens=True, clean_up_tokenization_spaces=False))
        lead = len(said) - len(said.lstrip())
        end = len(said) - lead if not text.startswith(said) else len(said)
        end = end if text.startswith(said) or text.startswith(said.lstrip()) else last
        spans.append((last, max(end, last)))
        last = max(end, last)
    return spans


def leading(tokenizer: PreTrainedTokenizerBase) -> Callable[[int], bool]:
    """Whether a token opens a word by a sign of its own: the space in it (Ġ, ▁) that WordPiece does not write."""

    def opens(index: int) -> bool:
        token = str(tokenizer.convert_ids_to_tokens(int(index)))
        return bool(token) and not token[0].isalnum()

    return opens


def counted_turns(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], Spans | None]:
    """A function that finds the characters of the assistant's turns in a text, or None where the text is no conversation:
    what stands in other turns is not the model's knowledge, and what stands before the first turn counts like any text.

    The signs of a turn are those that the tokenizer's chat template writes around one, and mneme's own "role: content".
    """
    opening, closing = _template_signs(tokenizer)

    def spans(text: str) -> Spans | None:
        if opening and opening in text:
            found = []
            start = text.find(opening)
            while start >= 0:
                begin = start + len(opening)
                after = text.find(opening, begin)
                end = text.find(closing, begin) if closing else after
                found.append((begin, end if end >= 0 else len(text)))
                start = after
            return found
        return _role_turns(text)

    return spans


def _template_signs(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """What the template writes between a user's words and the assistant's answer, and right after the answer."""
    if not tokenizer.chat_template:
        return "", ""
    turns = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ASSISTANT}]
    try:
        text = render_chat([*turns, *turns], tokenizer)
    except TemplateRefuses:
        return "", ""
    pieces = re.split(f"{_USER}|{_ASSISTANT}", text)
    if len(pieces) != 5:  # two questions and two answers cut the text into five
        return "", ""
    # After the last answer no question follows: what both have in common closes an answer.
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(pieces[2], pieces[-1], strict=False))
    return pieces[1].strip(), "".join(one for one, _ in same).strip()


def _role_turns(text: str) -> Spans | None:
    cuts = list(_ROLES.finditer(text))
    if not {"user", "assistant"} <= {cut.group(1) for cut in cuts}:
        return None
    ends = [*(cut.start() for cut in cuts[1:]), len(text)]
    own = [(cut.end(), end) for cut, end in zip(cuts, ends, strict=True) if cut.group(1) == "assistant"]
    return [(0, cuts[0].start()), *own] if cuts[0].start() else own
