"""Adapters of peft: what a stranger's adapter_config.json may ask for is checked, then peft puts the adapter on its base."""

import re
import warnings
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from mneme.confined import Exceeded, Refused, confined
from mneme.errors import (
    BrokenWeights,
    ModelMismatch,
    ModelNotFound,
    UnsafeWeights,
    UnsupportedArchitecture,
    one_line,
)
from mneme.models.checkpoints import is_adapter, read_json, weight_files
from mneme.models.safe_config import tensor_shapes

_LARGEST = 2**20
"""Bound of every whole number in adapter_config.json but ranks, which the weights bound, and scales, which make nothing."""
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
        raise ModelNotFound(f"{adapter} is an adapter that names no base. Give its base as BASE and the adapter as TUNED.")
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


def attach(model: PreTrainedModel, folder: Path) -> Any:
    """peft's wrapper of `model` with the adapter in `folder`, active and in eval mode.

    Raises UnsafeWeights, BrokenWeights, UnsupportedArchitecture, or ModelMismatch where it does not fit the model.
    """
    from peft import PeftConfig, PeftModel

    files = weight_files(folder)
    _check_adapter(folder, files, model)
    try:
        config = PeftConfig.from_pretrained(str(folder))
        if config.is_prompt_learning:
            raise UnsupportedArchitecture(
                f"{folder} is a prompt-tuning adapter, which changes the input and not the weights. Give a LoRA-like adapter."
            )
        with warnings.catch_warnings():  # the first two are peft's own affairs, the third is a broken adapter
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            warnings.filterwarnings("ignore", message=r"The following \w+_pattern keys", category=RuntimeWarning)
            warnings.filterwarnings("error", message="Found missing adapter keys")
            wrapped = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
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
    return wrapped


def _check_adapter(folder: Path, files: list[Path], model: nn.Module) -> None:
    """Raises UnsafeWeights for what would import code, BrokenWeights for numbers and patterns that no adapter has."""
    raw = read_json(folder / "adapter_config.json")
    where = f"{folder}/adapter_config.json"
    for key in ("megatron_config",):
        if raw.get(key):
            raise UnsafeWeights(f"{where} asks for code of another library ({key}), which mneme does not load. Remove {key}.")
    if str(raw.get("peft_type", "")).upper() == "XLORA":
        raise UnsupportedArchitecture(f"{folder} mixes other adapters, which it names by path. Give one of them.")
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
