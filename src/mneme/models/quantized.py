"""Quantized checkpoints: which library owns the format, and its own way back to plain weights."""

import importlib.util
from pathlib import Path
from typing import Any

from mneme.errors import LibraryMissing, UnsupportedArchitecture, one_line
from mneme.models.checkpoints import read_json

_OWNERS = {
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
    "gptq": ("gptqmodel", "gptqmodel optimum"),
    "awq": ("gptqmodel", "gptqmodel"),
    "compressed-tensors": ("compressed_tensors", "compressed-tensors"),
    "quanto": ("optimum.quanto", "optimum-quanto"),
    "torchao": ("torchao", "torchao"),
    "hqq": ("hqq", "hqq"),
    "aqlm": ("aqlm", "aqlm"),
    "eetq": ("eetq", "eetq"),
}
"""quant_method of config.json -> (module to import, what pip installs)."""


def quantization_of(folder: Path) -> str | None:
    """The quant_method that config.json names; None for plain weights."""
    settings = read_json(folder / "config.json").get("quantization_config")
    if not isinstance(settings, dict):
        return None
    method = settings.get("quant_method")
    if method is None and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
        return "bitsandbytes"
    return str(method or "unknown")


def require_owner(folder: Path, method: str) -> None:
    """Raises LibraryMissing where the library that can read a quantized folder is not installed."""
    module, package = _OWNERS.get(method, (None, None))
    if module is None or installed(module):
        return
    raise LibraryMissing(
        f"{folder} is quantized with {method}, and the library that reads it is not installed. "
        f"Run: pip install {package} — or give the model as it was before quantization."
    )


def installed(module: str) -> bool:
    """Could a module be imported?"""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is absent
        return False


def dequantized(model: Any, folder: Path, method: str) -> Any:
    """The same model with plain weights, by the library's own way. Raises UnsupportedArchitecture where it has none."""
    try:
        return model.dequantize()
    except (NotImplementedError, AttributeError, ValueError, RuntimeError, TypeError) as error:
        raise UnsupportedArchitecture(
            f"{folder} is quantized with {method}, whose weights cannot be made plain again here ({one_line(error)}). "
            "Give the model as it was before quantization."
        ) from error


def gguf_files(folder: Path) -> list[Path]:
    """The GGUF files of a folder that holds no other weights."""
    if any(folder.glob("*.safetensors")):
        return []
    return sorted(folder.glob("*.gguf"))


def require_gguf() -> None:
    """Raises LibraryMissing where GGUF files cannot be read."""
    if not installed("gguf"):
        raise LibraryMissing("A GGUF file needs a library of its own to be read. Run: pip install gguf")
