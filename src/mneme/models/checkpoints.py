"""Checkpoint folders: where they are, whether they can be trusted and read, and what identifies them.

safetensors only: a pickle can run code when it is read. Hub names become local folders first, so that everything after
this file works on folders.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError, safe_open

from mneme.errors import BrokenWeights, ModelNotFound, UnsafeWeights, one_line

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_SAMPLED_ABOVE = 256 * 2**20
_BLOCK = 2**20
_LONGEST_JSON = 2**27
"""Bytes; the longest tokenizer.json that we know of has 2**25 (Gemma 3)."""
_DEEPEST = 50
"""Levels of objects in each other; published files have less than ten."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def resolve_folder(source: str | Path, *, trust_remote_code: bool = False) -> Path:
    """The local folder of a checkpoint or adapter: `source` itself, or the snapshot of the hub repository of that name.

    Raises ModelNotFound with what was looked for. Of a hub repository only safetensors, configuration and tokenizer files
    are fetched (and Python files when remote code was asked for).
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _model_in(folder)
    if is_gguf(folder):
        return folder
    if folder.is_file():
        raise ModelNotFound(f"{folder} is a file. Expected the folder that holds it, with config.json beside the weights.")
    name = str(source)
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise ModelNotFound(f"{name} does not exist. Expected a model folder, an adapter folder or a hub name (owner/model).")
    patterns = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja"]
    patterns += ["*.py"] if trust_remote_code else []
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["consolidated*", "original/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ModelNotFound(
            f"{name} is no folder here, and the hub does not give it ({type(error).__name__}). "
            "Expected a model folder, an adapter folder or a hub name; check the spelling, the network and HF_HUB_OFFLINE."
        ) from error


def _model_in(folder: Path) -> Path:
    """`folder`, or the single GGUF file in it. Raises ModelNotFound that says what the folder holds instead of a model."""
    adapter, config = ((folder / name).is_file() for name in ("adapter_config.json", "config.json"))
    if adapter and config and any(folder.glob("adapter_model.*")) and _whole_weights(folder):
        raise ModelNotFound(
            f"{folder} holds a model and an adapter, and which of them is meant cannot be told. Move adapter_config.json and "
            "adapter_model.safetensors to a folder of their own."
        )
    quantized = [] if any(folder.glob("*.safetensors")) else sorted(folder.glob("*.gguf"))
    if len(quantized) == 1 and not adapter:
        return quantized[0]
    if quantized:
        raise ModelNotFound(f"{folder} holds {len(quantized)} GGUF files, first {quantized[0].name}. Give one of them.")
    if adapter or config:
        return folder
    inside = sorted({file.parent.name for name in ("config.json", "adapter_config.json") for file in folder.glob(f"*/{name}")})
    inside.sort(key=lambda name: (len(name), name))  # checkpoint-500 before checkpoint-1000
    sharded = [*folder.glob("*.distcp"), *folder.glob("*/*.distcp"), *folder.glob("global_step*/"), *folder.glob("*.metadata")]
    if inside:
        raise ModelNotFound(
            f"{folder} holds no model itself but {len(inside)} folders with one ({', '.join(inside[-3:])}). "
            f"Give one of them, such as {folder / inside[-1]}."
        )
    if sharded:
        raise ModelNotFound(
            f"{folder} holds the sharded state of a training ({sharded[0].name}), not a model. Merge it first (accelerate "
            "merge-weights, or zero_to_fp32.py of DeepSpeed) and give the folder that this writes."
        )
    raise ModelNotFound(
        f"{folder} has neither config.json nor adapter_config.json. Expected a folder written by save_pretrained "
        "(a model) or by peft (an adapter)."
    )


def _whole_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))


def is_adapter(folder: Path) -> bool:
    """True for a folder that peft wrote; not for a merged model beside which its adapter_config.json was left."""
    left_over = _whole_weights(folder) and not any(folder.glob("adapter_model.*"))
    return (folder / "adapter_config.json").is_file() and not left_over


def is_gguf(source: Path) -> bool:
    """True for a GGUF file, which stands for a folder: configuration, tokenizer and weights in one."""
    return source.suffix.lower() == ".gguf" and source.is_file()


def has_tokenizer(folder: Path) -> bool:
    """True where a folder carries a tokenizer of its own; fine-tunes and adapters often do not."""
    return is_gguf(folder) or any((folder / name).is_file() for name in _TOKENIZER_FILES)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint folder, or BrokenWeights that names the file."""
    try:
        if path.stat().st_size > _LONGEST_JSON:
            raise ValueError(f"it is longer than {_LONGEST_JSON >> 20} MB")
        value = json.loads(path.read_text(encoding="utf-8"))
        _require_flat(value)
    except (ValueError, RecursionError, OSError) as error:  # ValueError: no JSON, no UTF-8, a number of thousands of digits
        raise BrokenWeights(
            f"{path} is not JSON ({one_line(error)}). Copy the folder again or save the model again."
        ) from error
    if not isinstance(value, dict):
        raise BrokenWeights(f"{path} is not a JSON object. Copy the folder again or save the model again.")
    return value


def _require_flat(value: object) -> None:
    """Raises ValueError where objects and lists lie so deep in each other that walking them could exhaust the stack."""
    level = [value]
    for _ in range(_DEEPEST):
        inner = [part for part in level if isinstance(part, dict | list)]
        level = [part for outer in inner for part in (outer.values() if isinstance(outer, dict) else outer)]
        if not level:
            return
    raise ValueError(f"its objects lie more than {_DEEPEST} deep in each other")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, every header checked against the length of its file.

    Raises UnsafeWeights where there are only pickles, BrokenWeights where a shard is missing or truncated.
    """
    if is_gguf(folder):
        return [folder]  # read by its own library
    index = folder / "model.safetensors.index.json"
    if is_adapter(folder):
        files = [folder / "adapter_model.safetensors"]
    elif index.is_file():
        files = _indexed(index)
    else:
        files = [folder / "model.safetensors"]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        pickles = sorted({file.name for pattern in _PICKLES for file in folder.glob(pattern)})
        if pickles and len(missing) == len(files):
            raise UnsafeWeights(
                f"{folder} has only pickle weights ({pickles[0]}), which can run code when they are read. Expected "
                f"safetensors: load the model once where you trust it and save it with save_pretrained."
            )
        raise BrokenWeights(f"{folder} lacks {missing[0]}. Expected every safetensors file of the model; copy it again.")
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                opened.keys()
        except (SafetensorError, OSError) as error:
            raise BrokenWeights(
                f"{file} cannot be read ({one_line(error)}): {file.stat().st_size} bytes, probably a download or "
                "copy that was cut short. Fetch it again."
            ) from error
    return files


def _indexed(index: Path) -> list[Path]:
    """The files that an index of shards names, all of them inside its folder."""
    named = read_json(index).get("weight_map")
    names = set(named.values()) if isinstance(named, dict) and all(isinstance(n, str) for n in named.values()) else set()
    if not names:
        raise BrokenWeights(f"{index} names no file of weights. Copy it again or save the model again.")
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts or not name.endswith(".safetensors"):
            raise UnsafeWeights(
                f"{index} names {name!r}, which is no safetensors file inside its folder. Expected the files beside the index."
            )
    return sorted(index.parent / name for name in names)


def model_fingerprint(source: str | Path) -> str:
    """SHA-256 (hex) of what a checkpoint or adapter is: configuration, tokenizer, weights.

    Files above 256 MB are not read whole: their length, first and last MiB and 64 MiB-sized blocks evenly between stand for
    them. A change of one tensor in the gaps goes unseen; any ordinary training step changes every block.
    """
    folder = resolve_folder(source)
    digest = hashlib.sha256()
    names = {"config.json", "adapter_config.json", *_TOKENIZER_FILES}
    for file in [*sorted(folder / name for name in names), *weight_files(folder)]:
        if not file.is_file():
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as opened:
            starts = range(0, size, _BLOCK)
            if size > _SAMPLED_ABOVE:
                starts = [round(i * (size - _BLOCK) / 65) for i in range(66)]  # type: ignore[assignment]
            for start in starts:
                opened.seek(start)
                digest.update(opened.read(_BLOCK))
    return digest.hexdigest()
