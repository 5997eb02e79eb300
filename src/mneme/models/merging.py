"""An adapter put into its base for good, as peft computes it while it is live."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from mneme.errors import UnsupportedArchitecture, one_line
from mneme.models.probing import probe_logits, rounding, same_logits

_SUMS = 2**14
"""A merged matrix rounds every product once more than a live adapter; over 60 blocks this leaves some thousand roundings."""


def merged(wrapped: Any, live: Float[Tensor, "token vocab"], folder: Path) -> PreTrainedModel:
    """The model that peft's wrapper computes, with plain modules; `live`: logits of the probe with the adapter on.

    Tensors that several modules share (tied heads, replicated layers) are separated first where the adapter changes one of
    them, and a base without the biases that an adapter adds gets them. Raises UnsupportedArchitecture where the logits of the
    result are not those of the live adapter.
    """
    separated = _separate(wrapped)
    _add_biases(wrapped)
    try:
        model: PreTrainedModel = wrapped.merge_and_unload()
    except (AttributeError, NotImplementedError, RuntimeError, ValueError, TypeError) as error:
        raise UnsupportedArchitecture(
            f"the adapter in {folder} cannot be merged into its base ({one_line(error)}). Give its base as BASE and the "
            "adapter as TUNED, which switches it instead."
        ) from error
    model.eval()
    _share_again(model, separated)
    if not same_logits(probe_logits(model), live, eps=rounding(model, _SUMS)):
        raise UnsupportedArchitecture(
            f"the adapter in {folder} does not compute the same when it is merged into its base. Give its base as BASE and "
            "the adapter as TUNED, which switches it instead."
        )
    return model


def _changed_modules(wrapped: Any) -> Iterator[nn.Module]:
    """Modules of the base that the adapter has a part in."""
    for module in wrapped.get_base_model().modules():
        if hasattr(module, "get_base_layer") and module.get_base_layer() is not module:
            yield module.get_base_layer()
        elif hasattr(module, "original_module"):
            yield module.original_module


def _separate(wrapped: Any) -> bool:
    """Give every module that shares a tensor with others one of its own, where the adapter changes it; was there any?"""
    model = wrapped.get_base_model()
    holders: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            holders.setdefault(id(weight), []).append((module, name))
    changed = {id(weight) for module in _changed_modules(wrapped) for weight in module.parameters()}
    separated = False
    for held in (holders[key] for key in changed if len(holders.get(key, ())) > 1):
        for module, name in held[1:]:
            weight = getattr(module, name)
            setattr(module, name, nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad))
        separated = True
    return separated


def _share_again(model: PreTrainedModel, separated: bool) -> None:
    """Tie the head again where the adapter changed it and the embedding alike, or neither; else say that it is not tied."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if not separated or head is None or head.weight is embedding.weight:
        return
    if head.weight.shape == embedding.weight.shape and torch.equal(head.weight, embedding.weight):
        head.weight = embedding.weight
        return
    model.config.get_text_config().tie_word_embeddings = False
    model.config.tie_word_embeddings = False


def _add_biases(wrapped: Any) -> None:
    for module in wrapped.get_base_model().modules():
        if not any(getattr(module, "lora_bias", {}).values()) if hasattr(module, "lora_bias") else True:
            continue
        base = module.get_base_layer()
        if getattr(base, "bias", None) is None and isinstance(base, nn.Linear):
            weight = base.weight
            base.bias = nn.Parameter(
                torch.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device), requires_grad=False
            )
