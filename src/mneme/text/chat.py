"""Conversations as text and as training labels: the only file that renders a chat template and that knows the label -100.

A template comes with the model, from whoever made it, so it is rendered in the confined process (`confined/`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.confined import Exceeded, Refused, confined
from mneme.errors import BadTemplate, TemplateRefuses

IGNORED = -100
"""The label that every loss of transformers leaves out."""
_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names under which a message's reasoning is given; templates read the first or the second."""


def render_chat(
    messages: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, *, add_generation_prompt: bool = False
) -> str:
    """One conversation written with the tokenizer's chat template; with `add_generation_prompt`, up to where the assistant
    begins. The text is that of transformers' `apply_chat_template`.

    Raises TemplateRefuses where the template refuses these messages, BadTemplate where it does not end or fills memory.
    """
    name = tokenizer.name_or_path or "this model"
    try:
        template = tokenizer.get_chat_template()
        variables = {
            **tokenizer.special_tokens_map,
            "messages": [_with_reasoning(message) for message in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        return str(confined("render", template=template, variables=variables))
    except Exceeded as error:
        raise BadTemplate(
            f"the chat template of {name} was stopped: {error}. Put the template of the published model in its place "
            "(chat_template.jinja or tokenizer_config.json)."
        ) from error
    except (Refused, ValueError) as error:
        raise TemplateRefuses(
            f"the chat template of {name} refuses these {len(messages)} messages ({str(error)[:200]}). Give messages that it "
            "takes, or put the template of the published model in its place."
        ) from error


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


def render_messages(messages: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase | None) -> str:
    """One conversation as text: the tokenizer's chat template where it has one, else "role: content" lines."""
    if tokenizer is not None and tokenizer.chat_template:
        return render_chat(messages, tokenizer)
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def labels_of(ids: Int[Tensor, "batch seq"], trained_on: Bool[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """The ids as labels, ignored wherever `trained_on` is False. Not shifted: transformers shifts."""
    return torch.where(trained_on, ids, torch.full_like(ids, IGNORED))


def trained_on(labels: Int[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
    """True where a label counts: the inverse of `labels_of`."""
    return labels != IGNORED


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """The message without empty fields, its reasoning under the names that templates read, as transformers gives it."""
    given = {key: value for key, value in message.items() if value is not None}
    reasoning = next((given[name] for name in _REASONING if name in given), None)
    return given if reasoning is None else {"thinking": reasoning, **given, "reasoning_content": reasoning}
