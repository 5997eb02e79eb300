"""Conversations as text and as training labels: the only file that renders a chat template and that knows the label -100.

A template comes with the model, from whoever made it, so it is rendered in the confined process (`confined/`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.confined import Exceeded, Refused
from mneme.errors import BadTemplate, TemplateRefuses
from mneme.text.templates import fill_template, suited
from mneme.text.turns import message_words

IGNORED = -100
"""The label that every loss of transformers leaves out."""


def render_chat(
    messages: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    add_generation_prompt: bool = False,
    tools: Sequence[Any] | None = None,
) -> str:
    """One conversation written with the tokenizer's chat template; with `add_generation_prompt`, up to where the assistant
    begins. The text is that of transformers' `apply_chat_template`, of messages in the form that this template takes
    (`templates.suited`): a template without system turns gets the system prompt in front of the first question.

    Raises TemplateRefuses where the template refuses these messages, BadTemplate where it does not end or fills memory.
    """
    name = tokenizer.name_or_path or "this model"
    try:
        template, special = tokenizer.get_chat_template(tools=list(tools) if tools else None), tokenizer.special_tokens_map
        suiting = suited(messages, template, special)
        return fill_template(
            template, special, suiting, tools=list(tools) if tools else None, add_generation_prompt=add_generation_prompt
        )
    except Exceeded as error:
        raise BadTemplate(
            f"the chat template of {name} was stopped: {error}. Put the template of the published model in its place "
            "(chat_template.jinja or tokenizer_config.json)."
        ) from error
    except (Refused, ValueError) as error:
        raise TemplateRefuses(
            f"the chat template of {name} refuses these {len(messages)} messages ({str(error)[:200]}). Give messages that it "
            "takes, or another template with --chat-template."
        ) from error


def chat_ids(
    messages: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    add_generation_prompt: bool = False,
    tools: Sequence[Any] | None = None,
) -> list[int]:
    """Ids of a conversation written with the chat template, which writes the special tokens itself."""
    text = render_chat(messages, tokenizer, add_generation_prompt=add_generation_prompt, tools=tools)
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def without_opening(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """A rendered conversation without the token of its beginning where the tokenizer puts one there anyway: never two."""
    begin = tokenizer.bos_token
    adds = bool(begin) and list(tokenizer("a")["input_ids"])[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(str(begin)) if adds else text


def require_harmless(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises BadTemplate where the chat template does not end, or fills memory, on plain conversations."""
    user = {"role": "user", "content": "hello"}
    for messages, opened in (
        ([user], True),
        ([{"role": "system", "content": "be kind"}, user], True),
        ([user, {"role": "assistant", "content": "good day"}], False),
    ):
        try:
            render_chat(messages, tokenizer, add_generation_prompt=opened)
        except TemplateRefuses:  # many refuse system prompts; who needs what is refused is told then
            continue


def render_messages(
    messages: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase | None, tools: Sequence[Any] | None = None
) -> str:
    """One conversation as a text that a tokenizer reads: the chat template where it has one (without the token that the
    tokenizer itself puts in front), else "role: content" lines."""
    if tokenizer is not None and tokenizer.chat_template:
        return without_opening(render_chat(messages, tokenizer, tools=tools), tokenizer)
    return "\n".join(f"{message['role']}: {message_words(message)}" for message in messages)


def labels_of(ids: Int[Tensor, "batch seq"], trained_on: Bool[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """The ids as labels, ignored wherever `trained_on` is False. Not shifted: transformers shifts."""
    return torch.where(trained_on, ids, torch.full_like(ids, IGNORED))


def trained_on(labels: Int[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
    """True where a label counts: the inverse of `labels_of`."""
    return labels != IGNORED
