"""Conversations as text and as training labels: the only file that knows the label -100."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label that every loss of transformers leaves out."""


def render_messages(messages: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase | None) -> str:
    """One conversation as text: the tokenizer's chat template where it has one, else "role: content" lines."""
    if tokenizer is not None and tokenizer.chat_template:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False))
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def labels_of(ids: Int[Tensor, "batch seq"], trained_on: Bool[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """The ids as labels, ignored wherever `trained_on` is False. Not shifted: transformers shifts."""
    return torch.where(trained_on, ids, torch.full_like(ids, IGNORED))


def trained_on(labels: Int[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
    """True where a label counts: the inverse of `labels_of`."""
    return labels != IGNORED
