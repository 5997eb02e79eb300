"""Which tensor of TUNED stands against which of BASE, and what else of two models could differ beside tensors."""

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mneme.errors import ModelMismatch
from mneme.models.architecture import Parts

_INNER = re.compile(r"(^|\.)language_model\.(model\.)?")
"""What a model of pictures and text puts before the names of the language model in it."""
_NO_PART = {
    *(
        "_name_or_path",
        "name_or_path",
        "transformers_version",
        "dtype",
        "torch_dtype",
        "architectures",
        "auto_map",
        "use_cache",
    ),
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "vocab_size", "model_type"),
    *(
        "tie_word_embeddings",
        "initializer_range",
        "pretraining_tp",
        "id2label",
        "label2id",
        "problem_type",
        "chunk_size_feed_forward",
    ),
    *("is_decoder", "is_encoder_decoder", "output_attentions", "output_hidden_states", "return_dict", "quantization_config"),
    *("task_specific_params", "router_aux_loss_coef", "gradient_checkpointing", "unsloth_version", "unsloth_fixed"),
}
"""Settings of config.json that have no part in a forward pass in eval mode; ties and sizes show in the tensors."""


class Matched(NamedTuple):
    """One tensor of both models, on the rows of vocabulary that they share; views, so writing to them writes to the models."""

    name: str
    base: Tensor
    tuned: Tensor


def shared_vocabulary(base: Parts, tuned: Parts) -> int:
    """How many ids both models have a row for."""
    return min(int(parts.embedding.weight.shape[0]) for parts in (base, tuned))  # type: ignore[index]


def matched_tensors(base: Parts, tuned: Parts) -> list[Matched]:
    """Every tensor of the two models, tied ones once: an output matrix that is tied in one of the two stands for itself.

    Of a model of pictures and text against a text-only one, the language model in it. A linear map whose bias one of the two
    lacks has a bias of zeros there. Raises ModelMismatch, with the name and both shapes, for tensors that do not match.
    """
    first, second = _named(base), _named(tuned)
    towers = _without_towers(first, second)
    shared = shared_vocabulary(base, tuned)
    of_vocabulary = {
        id(weight) for parts in (base, tuned) for module in (parts.embedding, parts.head) for weight in module.parameters()
    }
    found: list[Matched] = []
    seen: set[tuple[int, int]] = set()
    for name in sorted({*first, *second} - towers, key=lambda name: list(first).index(name) if name in first else len(first)):
        one, other = first.get(name), second.get(name)
        one, other = _or_zeros(one, other, name, base), _or_zeros(other, one, name, tuned)
        if one is not None and other is not None and (id(one), id(other)) in seen:
            continue
        if one is None or other is None or not _fit(one, other, shared, {id(one), id(other)} <= of_vocabulary):
            raise ModelMismatch(
                f"the two models differ in shape: {name} is {_shape(one)} in BASE and {_shape(other)} in TUNED. "
                "Expected a fine-tune of the same model."
            )
        seen.add((id(one), id(other)))
        if one.shape != other.shape:
            one, other = one[:shared], other[:shared]
        found.append(Matched(name, one, other))
    return found


def one_sided(base: Parts, tuned: Parts) -> tuple[str, ...]:
    """A sentence where one model has parts for pictures or sound that the other lacks."""
    first, second = _named(base), _named(tuned)
    towers = _without_towers(first, second)
    if not towers:
        return ()
    side = "BASE" if towers <= first.keys() else "TUNED"
    return (f"{side} has {len(towers)} tensors for pictures or sound that the other model lacks; only language is compared.",)


def other_differences(base: Parts, tuned: Parts) -> tuple[str, ...]:
    """Buffers and settings that differ, by name: with equal tensors they can still make another model."""
    if base.model is tuned.model:
        return ()
    first, second = (
        {_INNER.sub(r"\1", name): buffer for name, buffer in parts.model.named_buffers()} for parts in (base, tuned)
    )
    names = [
        f"buffer {name}"
        for name in sorted(first.keys() & second.keys())
        if first[name].shape != second[name].shape or not torch.equal(first[name], second[name].to(first[name].device))
    ]
    settings, others = (_settings(parts.model.config.get_text_config().to_dict()) for parts in (base, tuned))
    names += [f"setting {key}" for key in sorted(settings.keys() | others.keys()) if settings.get(key) != others.get(key)]
    return tuple(names)


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _NO_PART and "dropout" not in key and "drop" not in key}


def _named(parts: Parts) -> dict[str, Tensor]:
    return dict(parts.model.named_parameters(remove_duplicate=False))


def _without_towers(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    """Where only one of the two holds a language model inside, rename its tensors to the other's and give the rest's names."""
    inner = [any(_INNER.search(name) for name in names) for names in (first, second)]
    if inner[0] == inner[1]:
        return set()
    wrapped, plain = (first, second) if inner[0] else (second, first)
    renamed = {name if name in plain else _plain_name(name, plain): weight for name, weight in wrapped.items()}
    wrapped.clear()
    wrapped.update(renamed)
    return {name for name in renamed if name not in plain}


def _plain_name(name: str, plain: dict[str, Tensor]) -> str:
    tried = (_INNER.sub(r"\1", name), _INNER.sub(r"\1model.", name))
    return next((own for own in tried if own in plain), name)


def _or_zeros(weight: Tensor | None, other: Tensor | None, name: str, parts: Parts) -> Tensor | None:
    if weight is not None or other is None or not name.endswith(".bias"):
        return weight
    try:
        module = parts.model.get_submodule(name.removesuffix(".bias"))
    except AttributeError:
        return None
    return torch.zeros_like(other) if isinstance(module, nn.Linear) else None


def _fit(one: Tensor, other: Tensor, shared: int, of_vocabulary: bool) -> bool:
    if one.shape == other.shape:
        return True
    rows = one.ndim > 0 and one.shape[1:] == other.shape[1:] and min(len(one), len(other)) == shared
    return rows and of_vocabulary


def _shape(weight: Tensor | None) -> str:
    return "absent" if weight is None else str(tuple(weight.shape))
