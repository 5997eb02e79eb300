"""What a stranger's adapter_config.json asks for, checked before peft reads it: no code, no numbers and patterns that no
adapter has, and a change of the model that is one and the same for every text."""

import re
from pathlib import Path
from typing import Any

from torch import nn

from mneme.confined import Exceeded, Refused, confined
from mneme.errors import BrokenWeights, UnsafeWeights, UnsupportedArchitecture
from mneme.models.checkpoints import read_json
from mneme.models.quantized import installed
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


def _no_fixed_change(raw: dict[str, Any]) -> str | None:
    """Why an adapter of these settings is not one change of the model, and what to do; None for all others."""
    if str(raw.get("peft_type", "")).upper() == "XLORA":
        return "mixes other adapters, which it names by path. Give one of them."
    if raw.get("arrow_config"):
        return "chooses among other adapters at every token (Arrow). Give one of them."
    if raw.get("alora_invocation_tokens"):
        return (
            "acts only behind certain tokens (alora_invocation_tokens), so what it changes depends on the text. Give an "
            "adapter that acts on all of it."
        )
    start = str(raw.get("init_lora_weights", ""))
    if start.startswith("pissa_niter") or start == "corda":
        how = "by random numbers, drawn anew at every load" if start != "corda" else "by text that is not in its file"
        return (
            f"began from a decomposition of its base ({start}) {how}, so no load gives what was trained. Merge it where it "
            "was trained, or save it there as a plain LoRA (path_initial_model_for_weight_conversion of save_pretrained)."
        )
    if start == "loftq" and not installed("bitsandbytes"):
        return (
            "began from LoftQ, which rounds its base with bitsandbytes at every load, and that is not installed. Run: "
            "pip install bitsandbytes"
        )
    if raw.get("sample_at_inference"):
        return (
            "draws random numbers at every reading. Set sample_at_inference to false in adapter_config.json to read its mean."
        )
    return None


def told_settings(folder: Path) -> tuple[str, ...]:
    """What adapter_config.json alone decides, so that nobody could find it altered: the scale of a LoRA; a sentence each."""
    raw = read_json(folder / "adapter_config.json")
    notes: tuple[str, ...] = ()
    if raw.get("init_lora_weights") == "lora_ga":
        notes = (f"{folder} began from LoRA-GA, which had changed its base in training; peft puts it on the plain base.",)
    rank, alpha = raw.get("r"), raw.get("lora_alpha")
    if (
        str(raw.get("peft_type")).upper() != "LORA"
        or not isinstance(rank, int)
        or not rank
        or not isinstance(alpha, int | float)
    ):
        return notes
    root = bool(raw.get("use_rslora"))
    scale = alpha / (rank**0.5 if root else rank)
    other = (
        " (other ranks and scales by rank_pattern, alpha_pattern)"
        if raw.get("rank_pattern") or raw.get("alpha_pattern")
        else ""
    )
    return (
        *notes,
        f"{folder}: a LoRA of rank {rank} whose products count {scale:.3g}-fold{', rank-stabilised' * root}{other}.",
    )


def check_adapter(folder: Path, files: list[Path], model: nn.Module) -> None:
    """Raises UnsafeWeights for what would import code, UnsupportedArchitecture for what is no one change of the model,
    BrokenWeights for numbers and patterns that no adapter has."""
    raw = read_json(folder / "adapter_config.json")
    where = f"{folder}/adapter_config.json"
    for key in ("megatron_config",):
        if raw.get(key):
            raise UnsafeWeights(f"{where} asks for code of another library ({key}), which mneme does not load. Remove {key}.")
    reason = _no_fixed_change(raw)
    if reason is not None:
        raise UnsupportedArchitecture(f"{folder} {reason}")
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
    elif key in ("r", "rank_pattern") and raw is None:
        return  # kinds that have no rank; AdaLoRA before its ranks are dealt out
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
