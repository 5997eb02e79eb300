"""Checkpoint folders as people have them, each made from the tiny pair's tuned model, and what becomes of each.

`READ` shapes compute what transformers computes with the plain folder; what is said of them is matched. `REFUSED` shapes raise
one sentence.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mneme.errors import BrokenWeights, LibraryMissing, MnemeError, ModelMismatch, ModelNotFound, UnsafeWeights

Tensors = dict[str, torch.Tensor]
Make = Callable[[Path, Path], object]
"""Of a plain model folder and a folder that is not there: writes the shape there."""


def rewrite(source: Path, folder: Path, edit: Callable[[Tensors], Tensors], **settings: object) -> Path:
    """A copy of a model folder with other tensors and settings."""
    shutil.copytree(source, folder)
    file = folder / "model.safetensors"
    save_file({k: v.clone().contiguous() for k, v in edit(load_file(file)).items()}, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _named(edit: Callable[[str], str]) -> Make:
    return lambda source, folder: rewrite(source, folder, lambda t: {edit(name): tensor for name, tensor in t.items()})


def _with(edit: Callable[[Tensors], Tensors], **settings: object) -> Make:
    return lambda source, folder: rewrite(source, folder, edit, **settings)


def _write(folder: Path, files: dict[str, bytes | str]) -> None:
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())


def _beside(files: dict[str, bytes | str]) -> Make:
    """A model folder with further files."""

    def make(source: Path, folder: Path) -> None:
        shutil.copytree(source, folder)
        _write(folder, files)

    return make


def _alone(files: dict[str, bytes | str]) -> Make:
    def make(_: Path, folder: Path) -> None:
        folder.mkdir()
        _write(folder, files)

    return make


def _inside(*names: str) -> Make:
    return lambda source, folder: [shutil.copytree(source, folder / name) for name in names]


def _sharded(index: Callable[[dict[str, Any]], dict[str, Any]] = lambda index: index, drop: str = "") -> Make:
    """In two files with an index, of which the entries may be altered, or one file lost."""

    def make(source: Path, folder: Path) -> None:
        shutil.copytree(source, folder)
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(tensors)
        files = {f"model-0000{n}-of-00002.safetensors": names[n - 1 :: 2] for n in (1, 2)}
        for file, held in files.items():
            save_file({name: tensors[name] for name in held}, folder / file, metadata={"format": "pt"})
        where = {name: file for file, held in files.items() for name in held}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index({"metadata": {}, "weight_map": where})))
        if drop:
            (folder / drop).unlink()

    return make


def _pickled(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _quantized(method: str, **more: object) -> Make:
    return _with(dict, quantization_config={"quant_method": method, "bits": 4, **more})


_LORA = json.dumps({"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]})
_INV_FREQ = "model.layers.0.self_attn.rotary_emb.inv_freq"

READ: dict[str, tuple[Make, str]] = {
    "as `save_pretrained` writes it": (_with(dict), ""),
    "in shards with an index": (_sharded(), ""),
    "in shards, the index lacks tensors of its files": (
        _sharded(lambda index: index | {"weight_map": dict(list(index["weight_map"].items())[::2])}),
        "",
    ),
    "without metadata in the file": (
        lambda source, folder: (
            shutil.copytree(source, folder),
            save_file(load_file(source / "model.safetensors"), folder / "model.safetensors"),
        ),
        "",
    ),
    "a trainer's folder with optimizer files": (
        _beside(
            {"optimizer.pt": b"x", "scheduler.pt": b"x", "rng_state.pth": b"x", "training_args.bin": b"x"}
            | {"trainer_state.json": "{}"}
        ),
        "",
    ),
    "tables that older versions saved (`inv_freq`)": (_with(lambda t: t | {_INV_FREQ: torch.ones(4)}), ""),
    "a merged model beside which adapter_config.json was left": (_beside({"adapter_config.json": _LORA}), ""),
    "prefix of torch.compile": (_named(lambda name: f"_orig_mod.{name}"), "torch.compile"),
    "prefix of torch.compile in the middle": (
        _named(lambda name: name.replace("layers.", "_orig_mod.layers.")),
        "torch.compile",
    ),
    "prefix of DDP": (_named(lambda name: f"module.{name}"), "DistributedDataParallel"),
    "prefixes of DDP and torch.compile": (_named(lambda name: f"module._orig_mod.{name}"), "DistributedDataParallel"),
    "prefix of FSDP": (_named(lambda name: name.replace("self_attn", "_fsdp_wrapped_module.self_attn")), "FSDP"),
    "prefix of activation checkpointing": (
        _named(lambda name: name.replace("mlp.", "_checkpoint_wrapped_module.mlp.")),
        "activation checkpointing",
    ),
    "prefix of Lightning": (_named(lambda name: f"_forward_module.{name}"), "Lightning"),
    "with a value head (TRL)": (
        _with(lambda t: {f"pretrained_model.{k}": v for k, v in t.items()} | {"v_head.summary.weight": torch.zeros(1, 16)}),
        "value head",
    ),
}
"""Shape -> (how it is made, what is said of it)."""

REFUSED: dict[str, tuple[Make, type[MnemeError], str]] = {
    "sharded, a file lost": (
        _sharded(drop="model-00002-of-00002.safetensors"),
        BrokenWeights,
        "lacks model-00002-of-00002.safetensors",
    ),
    "sharded, an index that names files outside its folder": (
        _sharded(lambda index: index | {"weight_map": {k: f"../{v}" for k, v in index["weight_map"].items()}}),
        UnsafeWeights,
        "no safetensors file inside its folder",
    ),
    "sharded, an index that leaves a file out": (
        _sharded(lambda index: index | {"weight_map": {k: v for k, v in index["weight_map"].items() if "00001" in v}}),
        BrokenWeights,
        "lacks .* tensors",
    ),
    "pickles only": (_pickled, UnsafeWeights, r"only pickle weights \(pytorch_model.bin\)"),
    "saved under DeepSpeed ZeRO-3 before gathering": (
        _with(lambda t: {k: v if "norm" in k else torch.zeros(0) for k, v in t.items()}),
        BrokenWeights,
        "DeepSpeed ZeRO-3.*zero_to_fp32.py",
    ),
    "a LoRA that was never merged, inside": (
        _with(lambda t: t | {"model.layers.0.mlp.up_proj.lora_A.default.weight": torch.zeros(2, 16)}),
        BrokenWeights,
        "not merged.*Merge it",
    ),
    "a layer more than config.json says": (
        _with(lambda t: t | {"model.layers.2.mlp.up_proj.weight": torch.zeros(32, 16)}),
        BrokenWeights,
        "no module of LlamaForCausalLM takes, first model.layers.2.mlp",
    ),
    "a layer more than BASE": (
        _with(
            lambda t: t | {k.replace("layers.1", "layers.2"): v for k, v in t.items() if "layers.1" in k}, num_hidden_layers=3
        ),
        ModelMismatch,
        "differ in shape: model.layers.2",
    ),
    "a classifier's head": (
        _with(lambda t: t | {"score.weight": torch.zeros(1, 16)}),
        BrokenWeights,
        "no module of LlamaForCausalLM takes, first score.weight",
    ),
    "the tied flag lost, and no head in the file": (
        _with(lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"}),
        BrokenWeights,
        'holds no lm_head.weight.*"tie_word_embeddings": true',
    ),
    "every tensor twice, with and without `module.`": (
        _with(lambda t: t | {f"module.{k}": v for k, v in t.items()}),
        BrokenWeights,
        "no module of LlamaForCausalLM takes",
    ),
    "every tensor twice, with and without `_orig_mod.`": (
        _with(lambda t: t | {f"_orig_mod.{k}": v for k, v in t.items()}),
        BrokenWeights,
        "some tensors twice",
    ),
    "NaN in a weight": (
        _with(lambda t: t | {"model.norm.weight": t["model.norm.weight"] * float("nan")}),
        BrokenWeights,
        "model.norm.weight holds NaN",
    ),
    "only `checkpoint-500`, `checkpoint-1000` inside": (
        _inside("checkpoint-500", "checkpoint-1000"),
        ModelNotFound,
        "2 folders .*such as .*checkpoint-1000",
    ),
    "only a folder of another name inside": (_inside("train"), ModelNotFound, r"holds no model itself but .* \(train\)"),
    "shards of FSDP": (_alone({"__0_0.distcp": b"", ".metadata": b""}), ModelNotFound, "sharded state of a training"),
    "shards of FSDP in a folder of their own": (
        _alone({"pytorch_model_fsdp_0/__0_0.distcp": b""}),
        ModelNotFound,
        "sharded state of a training",
    ),
    "shards of DeepSpeed": (_alone({"global_step100/zero.pt": b""}), ModelNotFound, "sharded state of a training"),
    "a model and an adapter in one folder": (
        _beside({"adapter_config.json": _LORA, "adapter_model.safetensors": b"x"}),
        ModelNotFound,
        "holds a model and an adapter",
    ),
    "two GGUF files": (_alone({"a.gguf": b"GGUF", "b.gguf": b"GGUF"}), ModelNotFound, "2 GGUF files"),
    "a GGUF file that is cut short": (_alone({"a.gguf": b"GGUF" + b"\0" * 100}), BrokenWeights, "cannot be read as GGUF"),
    "bitsandbytes, library not installed": (
        _quantized("bitsandbytes", load_in_4bit=True),
        LibraryMissing,
        "quantized with bitsandbytes.*pip install bitsandbytes",
    ),
    "GPTQ, library not installed": (_quantized("gptq"), LibraryMissing, "quantized with gptq.*pip install gptqmodel"),
    "AWQ, library not installed": (_quantized("awq"), LibraryMissing, "quantized with awq.*pip install gptqmodel"),
    "compressed-tensors, library not installed": (
        _quantized("compressed-tensors", format="pack-quantized", config_groups={}),
        LibraryMissing,
        "quantized with compressed-tensors.*pip install compressed-tensors",
    ),
    "HQQ, library not installed": (_quantized("hqq"), LibraryMissing, "quantized with hqq.*pip install hqq"),
    "torchao, library not installed": (_quantized("torchao"), LibraryMissing, "quantized with torchao.*pip install torchao"),
    "a quantization that nobody knows": (_quantized("zzz4"), MnemeError, "zzz4"),
}
"""Shape -> (how it is made, what it raises, what the sentence says)."""
