"""Every tensor in a checkpoint has a place in the model: what its name says about how it was saved, and what is refused.

Names are looked at in the headers, before anything is loaded.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from mneme.errors import BrokenWeights

_WRAPPERS = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning",
}
"""Parts of a name that a wrapper puts in wherever it stands, and whose they are."""
_OUTER = {"module": "DistributedDataParallel", "pretrained_model": "a value head's wrapper (TRL)"}
"""First parts of a name that a wrapper of a whole model puts before every tensor."""
_VALUE_HEAD = re.compile(r"(^|\.)v_head\.")
_OF_ADAPTERS = re.compile(
    r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer|original_module|modules_to_save)\."
)
_COMPUTED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|inv_freq|masked_bias|position_ids)$")
"""Tables that older versions of transformers saved and newer ones compute."""


class Names(NamedTuple):
    """How the tensors of a file are called in the model."""

    renamed: dict[str, str]
    """Name in the file -> name in the model; those that a model has no use for (a value head) are absent."""
    notes: tuple[str, ...]
    """What was taken off, a sentence each; none where every tensor already has the model's name."""


def model_names(shapes: Mapping[str, tuple[int, ...]], folder: Path) -> Names:
    """The names that the tensors of a checkpoint have without what torch.compile, FSDP, DDP and value heads put on.

    Raises BrokenWeights for a sharded training state, for an adapter that was never merged, and for two tensors of one name.
    """
    _refuse_states(shapes, folder)
    notes: list[str] = []
    renamed = {name: name for name in shapes}
    heads = [name for name in renamed if _VALUE_HEAD.search(name)]
    if heads and len(heads) < len(renamed):
        for name in heads:
            del renamed[name]
        notes.append(f"{folder}: {len(heads)} tensors of a value head were left out ({heads[0]}, …).")
    for part, owner in _WRAPPERS.items():
        having = [name for name, own in renamed.items() if part in own.split(".")]
        for name in having:
            renamed[name] = ".".join(piece for piece in renamed[name].split(".") if piece != part)
        if having:
            notes.append(f"{folder}: {part!r}, which {owner} puts into names, was taken off {len(having)} tensors.")
    for part, owner in _OUTER.items():
        if renamed and all(own.startswith(f"{part}.") for own in renamed.values()):
            renamed = {name: own.removeprefix(f"{part}.") for name, own in renamed.items()}
            notes.append(f"{folder}: {part!r}, which {owner} puts before names, was taken off {len(renamed)} tensors.")
    if len(set(renamed.values())) < len(renamed):
        raise BrokenWeights(f"{folder} holds some tensors twice, under a wrapper's name and their own. Save the model again.")
    return Names(renamed, tuple(notes))


def _refuse_states(shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    """Raises BrokenWeights for shards that were not gathered and adapters that were not merged."""
    empty = sorted(name for name, shape in shapes.items() if 0 in shape)
    if empty:
        raise BrokenWeights(
            f"{folder} holds {len(empty)} of {len(shapes)} tensors without a single number, first {empty[0]}: it was saved "
            "under DeepSpeed ZeRO-3 before the weights were gathered. Run zero_to_fp32.py in the training folder, or train "
            "with stage3_gather_16bit_weights_on_model_save."
        )
    leftovers = sorted(name for name in shapes if _OF_ADAPTERS.search(name))
    if leftovers:
        raise BrokenWeights(
            f"{folder} holds {len(leftovers)} tensors of an adapter inside a model, first {leftovers[0]}: the adapter was not "
            "merged when this was saved. Merge it (peft: merge_and_unload, then save_pretrained), or give the adapter itself."
        )


def require_places(unexpected: Iterable[str], folder: Path, model: str) -> None:
    """Raises BrokenWeights, with names, where tensors of the file have no place in the model; tables that are computed may."""
    stray = sorted(name for name in unexpected if not _COMPUTED.search(name))
    if stray:
        raise BrokenWeights(
            f"{folder} holds {len(stray)} tensors that no module of {model} takes, first {', '.join(stray[:3])}. "
            "The weights and config.json are not of one model: copy the config.json that was saved with them."
        )


def require_filled(lacking: Iterable[str], folder: Path, *, tied: bool, head: str | None) -> None:
    """Raises BrokenWeights, with names, where modules of the model got no tensor from the file."""
    names = sorted(lacking)
    if not names:
        return
    if names == [head] and not tied:
        raise BrokenWeights(
            f"{folder} holds no {head}, and its config.json says that the head is not the embedding. Where the base's is, set "
            '"tie_word_embeddings": true there; else copy the weights again.'
        )
    raise BrokenWeights(
        f"{folder} lacks {len(names)} tensors of the shapes that its config.json asks for, first {', '.join(names[:3])}. "
        "The weights and the configuration are not of one model; save it again."
    )


def head_name(model: torch.nn.Module) -> str | None:
    """The name of the output matrix in a transformers model; None where it has none."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    return next((f"{name}.weight" for name, module in model.named_modules() if module is head), None)
