"""Adapters of peft in a folder: checked, put on their base by peft, and proven to compute what they compute through peft."""

import hashlib
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from mneme.errors import BrokenWeights, ModelMismatch, ModelNotFound, UnsupportedArchitecture, one_line
from mneme.models.adapter_checks import check_adapter, told_settings
from mneme.models.adapter_names import PREFIX, fitted_names
from mneme.models.checkpoints import is_adapter, model_fingerprint, read_json, resolve_folder, weight_files
from mneme.models.probing import probe_logits, rounding, same_logits
from mneme.models.reading import is_finite
from mneme.models.vocabularies import embedding_rows

MOST_ADDED = 2**16
"""Ids that an adapter may add to its base's vocabulary; the most that we know of are some ten thousand
audio codes."""
_TRAINED_TOKENS = ".token_adapter.trainable_tokens_delta"
_WRAPPED = re.compile(r"\.(token_adapter|base_layer)(?=\.)")
"""What peft puts into the names of the base's own tensors that an adapter wraps."""
_SAME_SUMS = 4
"""The same modules run the same sums; on a GPU some of them come out a little different."""


def named_base(adapter: Path) -> str:
    """The base that an adapter names. Raises ModelNotFound where it names none, or itself."""
    named = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    if not named or not isinstance(named, str):
        raise ModelNotFound(
            f"{adapter} is an adapter that names no base. Give its base with --base, or as BASE and the adapter as TUNED."
        )
    folder, seen = Path(named), {adapter.resolve()}
    while folder.is_dir() and is_adapter(folder):
        if folder.resolve() in seen:
            raise ModelNotFound(
                f"{adapter} is an adapter whose base is an adapter that leads back to it ({named}). Correct "
                "base_model_name_or_path in adapter_config.json."
            )
        seen.add(folder.resolve())
        following = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        folder = Path(following if isinstance(following, str) else "")
        if not folder.parts:
            break
    return named


class Attached(NamedTuple):
    """An adapter on its base."""

    wrapped: Any
    """peft's wrapper, the adapter active, in eval mode."""
    edits: tuple[str, ...]
    """Tensors of the base itself that the adapter's file overwrites with other values: switching it off does not bring those
    back."""
    own: tuple[tuple[str, Tensor], ...]
    """The base's own tensors, by their names in the base."""
    notes: tuple[str, ...]
    """What had to be done to put it on, a sentence each."""
    told: tuple[str, ...]
    """What its configuration decides, a sentence each; nothing odd."""
    live: Tensor
    """Logits of the probe with the adapter on."""


def attach(model: PreTrainedModel, folder: Path) -> Attached:
    """Put the adapter in `folder` on `model`, which gets more rows of vocabulary where the adapter was trained with more.

    Raises UnsafeWeights, BrokenWeights, UnsupportedArchitecture, or ModelMismatch where it does not fit the model.
    """
    files = weight_files(folder)
    check_adapter(folder, files, model)
    tensors = load_file(files[0])
    broken = next((name for name, tensor in tensors.items() if not is_finite(tensor)), None)
    if broken is not None:
        raise BrokenWeights(
            f"{folder}: {broken} holds NaN or infinite numbers. Training diverged or the file is damaged; give one from "
            "before."
        )
    renamed, notes = fitted_names(tensors, model, folder)
    tensors = {renamed[name]: tensor for name, tensor in tensors.items()}
    rows = embedding_rows(model)
    notes += _resize(model, tensors, folder)
    own = {_WRAPPED.sub("", name.removeprefix(PREFIX)): name for name in tensors}
    places = dict(model.named_parameters(remove_duplicate=False))
    whole = {place: own[place] for place in own.keys() & places.keys()}  # what the base has under that very name
    differing = sorted(place for place, name in whole.items() if not _same_rows(tensors[name], places[place], rows))
    plain = tuple(model.named_parameters())
    with tempfile.TemporaryDirectory() as made:
        source = folder
        if notes:
            source = Path(made)
            (source / "adapter_config.json").write_bytes((folder / "adapter_config.json").read_bytes())
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, source / "adapter_model.safetensors")
        wrapped, unexpected = _wrapped(model, source, folder)
    unexpected = [name for name in unexpected if not _repeats(name, tensors)]
    if unexpected:
        named = ", ".join(unexpected[:3])
        raise BrokenWeights(
            f"{folder} holds {len(unexpected)} tensors that no module of the adapter takes, first {named}. "
            "adapter_config.json was edited or is of another adapter: copy the one that was saved with these weights."
        )
    state = wrapped.state_dict()  # a file that holds a whole module (modules_to_save) has its names, but not its place
    edits = tuple(place for place in differing if whole[place] in state)
    lost = [place for place in edits if not _same_rows(tensors[whole[place]], state[whole[place]], rows)]
    if lost:
        raise BrokenWeights(
            f"{folder} holds {lost[0]}, whose place in the base is shared with another tensor of this file. "
            "adapter_config.json was edited (modules_to_save), or head and embedding were not tied in training: give it."
        )
    for config in wrapped.peft_config.values():
        if not edits and getattr(config, "bias", "none") != "none":
            config.bias = "none"  # it trained no bias of this base, and peft would warn at every switch
    return Attached(
        wrapped=wrapped,
        edits=edits,
        own=plain,
        notes=notes,
        told=told_settings(folder),
        live=_live_logits(wrapped, folder),
    )


def _live_logits(wrapped: Any, folder: Path) -> Tensor:
    """Logits of the probe, adapter on. Raises UnsupportedArchitecture where peft's wrapper gives others than the modules in
    it: some kinds act by what the wrapper puts before a text, by a task that it is told, or by chance."""
    try:
        live, called = probe_logits(wrapped.get_base_model()), probe_logits(wrapped)
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise UnsupportedArchitecture(
            f"the adapter in {folder} cannot read plain text on its own ({one_line(error)}). Give an adapter of one task, "
            "such as a LoRA."
        ) from error
    if not same_logits(live, called, eps=rounding(wrapped, _SAME_SUMS)):
        raise UnsupportedArchitecture(
            f"the adapter in {folder} is not one change of its base's modules: peft computes something else with it at every "
            "call, or by what it puts before a text. Give a LoRA-like adapter."
        )
    return live


def _wrapped(model: PreTrainedModel, source: Path, folder: Path) -> tuple[Any, list[str]]:
    """peft's wrapper, and the tensors of the file that it has no place for."""
    from peft import PeftConfig, PeftModel, load_peft_weights, set_peft_model_state_dict

    try:
        config = PeftConfig.from_pretrained(str(source))
        if config.is_prompt_learning:
            raise UnsupportedArchitecture(
                f"{folder} is a prompt-tuning adapter, which changes the input and not the weights. Give a LoRA-like adapter."
            )
        with warnings.catch_warnings():  # the first three are peft's own affairs, the last is a broken adapter
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            warnings.filterwarnings("ignore", message=r"The following \w+_pattern keys", category=RuntimeWarning)
            warnings.filterwarnings("ignore", message="(?s).*tie_word_embeddings", category=UserWarning)
            warnings.filterwarnings("error", message="Found missing adapter keys")
            wrapped = PeftModel.from_pretrained(model, str(source), is_trainable=False)
            loaded = load_peft_weights(str(source), device="cpu")
            again = set_peft_model_state_dict(wrapped, loaded)  # the same again: only this says what found no place
    except UserWarning as warning:
        raise BrokenWeights(
            f"{folder} lacks tensors that its adapter_config.json asks for ({one_line(warning)}). "
            "Save or fetch the adapter again."
        ) from warning
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, re.error) as error:
        raise ModelMismatch(
            f"the adapter in {folder} does not fit the base {model.config.name_or_path} ({one_line(error)}). "
            "Expected the base it was trained on."
        ) from error
    wrapped.eval()
    return wrapped, sorted(again.unexpected_keys)


def _repeats(name: str, tensors: dict[str, Tensor]) -> bool:
    """Is this the second name of a tensor in the same file? peft writes one for a whole module of a resized vocabulary, and
    for the trained tokens of a head that is the embedding."""
    if name.endswith(_TRAINED_TOKENS):
        return any(
            other != name and other.endswith(_TRAINED_TOKENS) and torch.equal(tensor, tensors[name])
            for other, tensor in tensors.items()
        )
    other = tensors.get(name.replace(".modules_to_save.", "."))
    return ".modules_to_save." in name and other is not None and torch.equal(other, tensors[name])


def _same_rows(tensor: Tensor, weight: Tensor, rows: int) -> bool:
    """The same values, where the base's vocabulary was longer than `rows` only in these."""
    if tensor.shape != weight.shape:
        return False
    if tensor.ndim == 2 and len(weight) > rows and len(weight) - rows <= MOST_ADDED:
        tensor, weight = tensor[:rows], weight[:rows]
    return torch.equal(tensor.to(weight.device, weight.dtype), weight.detach())


def _resize(model: PreTrainedModel, tensors: dict[str, Tensor], folder: Path) -> tuple[str, ...]:
    """Give the model as many rows of vocabulary as the adapter was trained with; what the new rows hold comes with it."""
    rows, width = embedding_rows(model), int(model.get_input_embeddings().weight.shape[1])
    wanted = rows
    for name, tensor in tensors.items():
        if re.search(r"(embed_tokens|wte|embed_in|word_embeddings|lm_head|embed_out|tok_embeddings)\.", name):
            along = {"lora_embedding_A": -1, "lora_B": 0, "lora_A": None, "lora_embedding_B": None}
            axis = next((at for part, at in along.items() if f".{part}" in name), 0)
            if axis is None or (axis == 0 and tensor.ndim == 2 and tensor.shape[1] != width and "lora_B" not in name):
                continue
            wanted = max(wanted, int(tensor.shape[axis])) if tensor.ndim == 2 else wanted
    indices = read_json(folder / "adapter_config.json").get("trainable_token_indices") or []
    for ids in indices.values() if isinstance(indices, dict) else [indices]:
        wanted = max([wanted, *(index + 1 for index in ids if isinstance(index, int))])
    if wanted == rows:
        return ()
    if wanted > rows + MOST_ADDED:
        raise BrokenWeights(
            f"{folder} asks for {wanted - rows:,} ids beyond the base's {rows:,}. Expected a few added tokens."
        )
    with torch.random.fork_rng(devices=[]):
        model.resize_token_embeddings(wanted, mean_resizing=False)
    return (f"{folder}: the adapter was trained with {wanted - rows} ids more than its base has; these rows were added.",)


def whole_fingerprint(source: str | Path, adapter_base: str | Path | None = None) -> str:
    """`model_fingerprint` of all that is computed with: of an adapter also the base, `adapter_base` or the one it names.

    Other weights under the name of the same base are another model, and stages that were made with them are of no use. A base
    that is not at hand adds nothing: loading says what is missing.
    """
    folder = resolve_folder(source)
    own = model_fingerprint(folder)
    if not is_adapter(folder):
        return own
    try:
        below = whole_fingerprint(adapter_base if adapter_base is not None else named_base(folder))
    except ModelNotFound:
        return own
    return hashlib.sha256(f"{own} {below}".encode()).hexdigest()
