"""Adapters of peft: what a stranger's adapter_config.json may ask for is checked, then peft puts the adapter on its base."""

import hashlib
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from mneme.confined import Exceeded, Refused, confined
from mneme.errors import BrokenWeights, ModelMismatch, ModelNotFound, UnsafeWeights, UnsupportedArchitecture, one_line
from mneme.models.adapter_names import PREFIX, fitted_names
from mneme.models.checkpoints import is_adapter, model_fingerprint, read_json, resolve_folder, weight_files
from mneme.models.safe_config import tensor_shapes
from mneme.models.vocabularies import embedding_rows

_LARGEST = 2**20
"""Bound of every whole number in adapter_config.json but ranks, which the weights bound, and scales, which make nothing."""
MOST_ADDED = 2**16
"""Ids that an adapter may add to its base's vocabulary; the most that we know of are some ten thousand
audio codes."""
_FREE_NUMBERS = ("alpha", "seed", "scale")
_PLAIN = re.compile(r"[\w.-]*")
"""A name of modules: no pattern that could take long."""
_FORMS = {
    "target_modules": r"(?:{})\Z",
    "exclude_modules": r"(?:{})\Z",
    "feedforward_modules": r"(?:{})\Z",
    "modules_to_save": r"(^|.*\.){}($|\..*)",
    "rank_pattern": r"(.*\.)?({})$",
    "alpha_pattern": r"(.*\.)?({})$",
    "layers_pattern": r"(?:^|.*?\.){}\.(?P<idx>\d+)\.",
}
"""How peft tries the patterns of each key on the names of modules; other keys that hold patterns are tried in every way."""


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


def attach(model: PreTrainedModel, folder: Path) -> Attached:
    """Put the adapter in `folder` on `model`, which gets more rows of vocabulary where the adapter was trained with more.

    Raises UnsafeWeights, BrokenWeights, UnsupportedArchitecture, or ModelMismatch where it does not fit the model.
    """
    files = weight_files(folder)
    _check_adapter(folder, files, model)
    tensors = load_file(files[0])
    renamed, notes = fitted_names(tensors, model, folder)
    tensors = {renamed[name]: tensor for name, tensor in tensors.items()}
    rows = embedding_rows(model)
    notes += _resize(model, tensors, folder)
    own = {name.removeprefix(PREFIX).replace(".base_layer", ""): name for name in tensors}
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
    return Attached(wrapped, edits, plain, notes)


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
    """Is this the second name of a tensor in the same file? peft writes one for a whole module of a resized vocabulary."""
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


def _check_adapter(folder: Path, files: list[Path], model: nn.Module) -> None:
    """Raises UnsafeWeights for what would import code, BrokenWeights for numbers and patterns that no adapter has."""
    raw = read_json(folder / "adapter_config.json")
    where = f"{folder}/adapter_config.json"
    for key in ("megatron_config",):
        if raw.get(key):
            raise UnsafeWeights(f"{where} asks for code of another library ({key}), which mneme does not load. Remove {key}.")
    if str(raw.get("peft_type", "")).upper() == "XLORA":
        raise UnsupportedArchitecture(f"{folder} mixes other adapters, which it names by path. Give one of them.")
    if not raw.get("peft_type"):
        raise BrokenWeights(
            f'{where} does not say what kind of adapter this is. Add "peft_type": "LORA" (or the kind that was trained).'
        )
    shapes = tensor_shapes(files)
    _check_numbers(raw, where, max((size for shape in shapes.values() for size in shape), default=0))
    replicated = raw.get("layer_replication") or []
    if not isinstance(replicated, list) or any(
        not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(end, int) and 0 <= end < _LARGEST for end in pair)
        for pair in replicated
    ):
        raise BrokenWeights(f"{where}: layer_replication is {str(replicated)[:40]}. Expected a list of pairs of layers.")
    if sum(max(last - first, 0) for first, last in replicated) > len(shapes):
        raise BrokenWeights(f"{where}: layer_replication asks for more layers than the adapter has tensors ({len(shapes)}).")
    _check_patterns(raw, where, [name for name, _ in model.named_modules() if name])


def _check_numbers(raw: Any, where: str, largest: int, key: str = "") -> None:
    if isinstance(raw, dict):
        for inner, value in raw.items():
            _check_numbers(value, where, largest, key if key == "rank_pattern" else inner)
    elif isinstance(raw, list):
        for value in raw:
            _check_numbers(value, where, largest, key)
    elif key == "rank_pattern" and raw is None:
        return  # AdaLoRA before its ranks are dealt out
    elif key in ("r", "rank_pattern"):
        if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw <= largest:
            raise BrokenWeights(
                f"{where}: the rank {key} is {str(raw)[:40]!r}. Expected a whole number of at most {largest:,}, the largest "
                "side of its weights."
            )
    elif isinstance(raw, int | float) and not any(part in key for part in _FREE_NUMBERS) and not abs(raw) <= _LARGEST:
        raise BrokenWeights(f"{where}: {key} is {str(raw)[:40]}. Expected a number of at most {_LARGEST:,}.")


def _check_patterns(raw: dict[str, Any], where: str, names: list[str]) -> None:
    """Raises BrokenWeights where a pattern takes too long on the names that peft will try it on."""
    for key, value in raw.items():
        if "module" not in key and "pattern" not in key:
            continue
        found = [value] if isinstance(value, str) else list(value) if isinstance(value, list | dict) else []
        written = [pattern for pattern in found if isinstance(pattern, str) and not _PLAIN.fullmatch(pattern)]
        forms = [_FORMS[key]] if key in _FORMS else list(_FORMS.values())
        if not written:
            continue
        tried = [form.replace("{}", pattern) for pattern in written for form in dict.fromkeys(forms)]
        try:
            confined("match", patterns=tried, names=[*names, *(f"base_model.model.{name}" for name in names)])
        except (Exceeded, Refused) as error:
            raise BrokenWeights(
                f"{where}: matching {key} ({written[0][:60]!r}) was stopped: {error}. Expected names of modules, or a pattern "
                "that is quickly tried, such as '.*\\.(q_proj|v_proj)'."
            ) from error


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
