"""What a stranger's configuration may decide: numbers that the weights on disk bear out, and no code.

Everything is checked before anything is allocated: numbers in the JSON, then the sizes of the model that it describes (built
without memory, on the meta device) against the shapes in the safetensors headers.
"""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
)

from mneme.errors import BrokenWeights, UnsafeWeights, UnsupportedArchitecture, one_line
from mneme.models.checkpoints import read_json

_COUNTS = {
    *("num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers", "decoder_layers", "num_decoder_layers"),
    *("num_attention_heads", "num_key_value_heads", "num_heads", "n_heads", "n_head", "head_dim"),
    *("vocab_size", "hidden_size", "d_model", "n_embd", "intermediate_size", "ffn_dim", "d_ff", "n_inner"),
}
"""Keys that hold a whole number from 1, a list of such (one a layer), or null."""
_LAYERS = {name for name in _COUNTS if "layer" in name}
_MOST_REPEATS = 2**16
"""Bound of every other number of layers, experts, heads or groups: each may become a Python object. Published models have at
most 2^14 of anything (the experts of Doge)."""
_MOST_LAYERS = 1024
"""Bound of layers where no weights are at hand; the deepest published decoder has 126 (Llama 3.1 405B)."""
_REPEATED = ("layers", "layer", "experts", "heads", "groups", "blocks")
_LONGEST_CHUNK = 2**13
"""State-space models pad a text to whole chunks and hold a square of that length; published ones have 64 to 256."""
_SPARE_WEIGHTS = 2**22
"""How many numbers a model may have beyond twice those on disk: what is missing there is told by name, when it is loaded."""
_SPARE_BUFFERS = 2**30
"""Bytes that tables which are computed (rotary angles, triangular masks) may take beyond four times the weights."""
_BUILD_SECONDS = 4.0
"""Processor seconds in which the modules of a model are made; 0.1 for 32 blocks, 1 for 60 blocks of 64 separate experts."""
_FAILURES = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, NotImplementedError, ImportError),
    *(ArithmeticError, AssertionError, RuntimeError, MemoryError),
)
"""What transformers raises for a configuration that describes no model (RecursionError is a RuntimeError)."""


class _TooLong(BaseException):
    """The modules of a model were not made in time. No Exception, so that no library takes it for one of its own."""


def read_config(folder: Path, files: list[Path] | None, trust_remote_code: bool) -> PretrainedConfig:
    """The configuration of the model in `folder` whose weights are `files` (None: not at hand), with nothing in it that would
    load code.

    Raises UnsafeWeights where the model is code of its own and that was not asked for, BrokenWeights where a number is none or
    describes a model that is larger than the weights.
    """
    raw = read_json(folder / "config.json")
    _check_code(raw, folder, trust_remote_code)
    shapes = None if files is None else tensor_shapes(files)
    _check_numbers(raw, folder, _MOST_LAYERS if shapes is None else len(shapes))
    try:
        with _in_time(_BUILD_SECONDS):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            drop_loaders(config)
            _require_decoder(config, folder)
            if not (trust_remote_code and raw.get("auto_map")):  # code that is trusted may do as it likes
                model = empty_model(config)
                if shapes is not None:
                    _check_sizes(model, folder, shapes, bool(raw.get("quantization_config")))
    except _TooLong as error:
        raise BrokenWeights(
            f"{folder}/config.json describes a model that is not even laid out within {_BUILD_SECONDS:g} seconds. Expected "
            "the configuration that was saved with these weights."
        ) from error
    except _FAILURES as error:
        raise BrokenWeights(
            f"{folder} cannot be loaded as a causal language model: its config.json gives {type(error).__name__}, "
            f"{one_line(error)}. Expected what save_pretrained writes."
        ) from error
    return config


def drop_loaders(config: PretrainedConfig) -> None:
    """Forget which attention and expert kernels the file names: such a name can be a hub repository whose code is run."""
    config._attn_implementation = None
    config._experts_implementation = None


def empty_model(config: PretrainedConfig, trust_remote_code: bool = False) -> nn.Module:
    """The modules that a configuration describes, without memory for their weights."""
    with torch.device("meta"):
        model: nn.Module = model_class(config).from_config(config, trust_remote_code=trust_remote_code)
    return model


def model_class(config: PretrainedConfig) -> Any:
    """The Auto class that loads this configuration with a language-modelling head: a causal language model, or a model of
    pictures and text that has one inside."""
    wrapper = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING
    return AutoModelForImageTextToText if wrapper else AutoModelForCausalLM


def read_gguf_config(file: Path) -> PretrainedConfig:
    """The configuration that the header of a GGUF file gives, borne out by the tensors in it.

    Raises BrokenWeights for a file that is none, or whose numbers its tensors do not bear out.
    """
    from gguf import GGUFReader

    try:
        with _in_time(_BUILD_SECONDS * 4):  # its header holds the vocabulary, which is read as Python lists
            shapes = {tensor.name: tuple(int(side) for side in tensor.shape) for tensor in GGUFReader(file).tensors}
            config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
            drop_loaders(config)
            _check_numbers(json.loads(config.to_json_string()), file, len(shapes))
            _check_sizes(empty_model(config), file, shapes, False)
    except _TooLong as error:
        raise BrokenWeights(f"{file} could not be laid out in time. Expected the GGUF file of a published model.") from error
    except _FAILURES as error:
        raise BrokenWeights(
            f"{file} cannot be read as GGUF ({type(error).__name__}, {one_line(error)}). Fetch it again, or give the model in "
            "safetensors."
        ) from error
    return config


def _require_decoder(config: PretrainedConfig, folder: Path) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedArchitecture(
            f"{folder} is an encoder-decoder ({config.model_type}), which reads one text and writes another. mneme audits "
            "decoder-only language models."
        )


def tensor_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, from the headers alone."""
    found: dict[str, tuple[int, ...]] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            found |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 - no dict
    return found


def _check_code(raw: dict[str, Any], folder: Path, trust_remote_code: bool) -> None:
    if raw.get("auto_map") and not trust_remote_code and raw.get("model_type") not in CONFIG_MAPPING:
        raise UnsafeWeights(
            f"{folder} needs Python code of its own ({str(raw['auto_map'])[:200]}), which mneme does not run unless asked. "
            "Read that code, then give --trust-remote-code."
        )


def _check_numbers(raw: Any, folder: Path, tensors: int) -> None:
    if isinstance(raw, list):
        if len(raw) > _MOST_REPEATS:
            raise BrokenWeights(
                f"{folder}/config.json holds a list of {len(raw):,}. Expected at most {_MOST_REPEATS:,} entries."
            )
        for entry in raw:
            _check_numbers(entry, folder, tensors)
    if not isinstance(raw, dict):
        return
    for key, value in raw.items():
        if isinstance(value, dict | list) and key != "quantization_config":
            _check_numbers(value, folder, tensors)
        if key in _COUNTS and value is not None:
            for number in value if isinstance(value, list) else [value]:
                _require_count(key, number, folder)
        largest = _largest_of(key, tensors)
        if isinstance(value, int | float) and largest is not None and not value <= largest:
            what = f"at most {largest:,}" if key not in _LAYERS else f"at most the {largest:,} tensors of its weights"
            raise BrokenWeights(f"{folder}/config.json: {key} is {str(value)[:40]}. Expected {what}.")


def _require_count(key: str, number: object, folder: Path) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number < 2**40:
        raise BrokenWeights(
            f"{folder}/config.json: {key} is {str(number)[:40]!r}. Expected a whole number from 1, as saved with the weights."
        )


def _largest_of(key: str, tensors: int) -> int | None:
    if key in _LAYERS:
        return max(tensors, 128)  # parts that are not loaded (a picture encoder) have layers without tensors
    if key.endswith("chunk_size") and "attention" not in key:
        return _LONGEST_CHUNK
    return _MOST_REPEATS if key.endswith(_REPEATED) else None


def _check_sizes(model: nn.Module, folder: Path, shapes: dict[str, tuple[int, ...]], quantized: bool) -> None:
    stored = sum(torch.Size(shape).numel() for shape in shapes.values()) * (8 if quantized else 1)  # 4 bits in an int32
    wanted = sum(parameter.numel() for parameter in model.parameters())
    if wanted > 2 * stored + _SPARE_WEIGHTS:
        raise BrokenWeights(
            f"{folder}/config.json describes a model of {wanted:,} numbers, and its weights hold {stored:,}. Expected the "
            "configuration that was saved with these weights."
        )
    tables = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    if tables > 16 * stored + _SPARE_BUFFERS:
        raise BrokenWeights(
            f"{folder}/config.json asks for tables of {tables / 1e9:,.0f} GB beside weights of {stored:,} numbers. Expected "
            "the configuration that was saved with these weights."
        )


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    """Raises _TooLong in what is inside after that much time of the processor. Only the main thread has a limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
