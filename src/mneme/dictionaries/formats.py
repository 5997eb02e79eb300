"""Dictionaries on disk: a folder with `cfg.json` and `dictionary.safetensors`; export of one stream's slice for SAELens."""

import json
import math
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mneme.dictionaries.crosscoder import Dictionary, Kind, pair_rows
from mneme.errors import BadOption, BrokenWeights

_TENSORS = ("w_enc", "w_dec", "b_enc", "b_dec", "mean", "scale")
_MAX_CFG_BYTES = 1 << 20


class _Cfg(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    schema_: Literal["mneme.dictionary/1"] = "mneme.dictionary/1"
    kind: Kind
    d_model: int
    n_latents: int
    k: float
    threshold: float
    seed: int


def save_dictionary(dictionary: Dictionary, folder: Path) -> None:
    """Writes `cfg.json` and `dictionary.safetensors` into `folder` (made if missing), the weights first."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: getattr(dictionary, name).detach().cpu().float().contiguous() for name in _TENSORS}
    save_file(tensors, folder / "dictionary.safetensors")
    cfg = _Cfg(
        kind=dictionary.kind,
        d_model=dictionary.d_model,
        n_latents=dictionary.n_latents,
        k=float(dictionary.k),
        threshold=float(dictionary.threshold),
        seed=dictionary.seed,
    )
    (folder / "cfg.json").write_text(cfg.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_dictionary(folder: Path) -> Dictionary:
    """Reads what `save_dictionary` wrote. Nothing in the folder is trusted: every name, type and shape is checked.

    Error: BrokenWeights, with the file, what is wrong with it, and what was expected.
    """
    cfg = _read_cfg(folder / "cfg.json")
    path = folder / "dictionary.safetensors"
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise BrokenWeights(f"{path} does not exist: expected a folder written by mneme. Name that folder.") from None
    except (SafetensorError, OSError) as problem:
        raise BrokenWeights(f"{path} is not a whole safetensors file ({problem}). Copy or train it again.") from problem
    width = cfg.d_model if cfg.kind == "change" else 2 * cfg.d_model
    shapes = {
        "w_enc": (width, cfg.n_latents),
        "w_dec": (cfg.n_latents, width),
        "b_enc": (cfg.n_latents,),
        "b_dec": (width,),
        "mean": (width,),
        "scale": (width,),
    }
    if set(tensors) != set(shapes):
        raise BrokenWeights(f"{path} holds the tensors {sorted(tensors)}: expected {sorted(shapes)}. Train it again.")
    for name, shape in shapes.items():
        _check(path, name, tensors[name], shape)
    if not bool((tensors["scale"] > 0).all()):
        raise BrokenWeights(f"{path}: `scale` must be positive everywhere. Train it again.")
    return Dictionary(
        kind=cfg.kind, threshold=cfg.threshold, k=cfg.k, d_model=cfg.d_model, seed=cfg.seed, **tensors
    )  # fmt: skip


def export_saelens(dictionary: Dictionary, folder: Path, *, stream: Literal["change", "base", "tuned"]) -> None:
    """Writes a slice as a JumpReLU SAE in SAELens' format (`cfg.json`, `sae_weights.safetensors`), normalisation folded in.

    "change" (change dictionaries): reads and writes q = (h_tuned - h_base)/sqrt2 in raw units, exactly. "base" or "tuned"
    (crosscoders): writes that model's residual stream; the encoder reads one stream as if both models had it, so its codes
    are the crosscoder's exactly where the two models agree and only there.

    Error: BadOption when the dictionary has no such slice.
    """
    if (stream == "change") != (dictionary.kind == "change"):
        wanted = "'change'" if dictionary.kind == "change" else "'base' or 'tuned'"
        raise BadOption(f"A {dictionary.kind} dictionary has no {stream!r} slice: expected {wanted}.")
    w_enc = dictionary.w_enc / dictionary.scale[:, None]
    b_enc = dictionary.b_enc - dictionary.mean @ w_enc
    w_dec = dictionary.w_dec * dictionary.scale
    b_dec = dictionary.b_dec * dictionary.scale + dictionary.mean
    if stream != "change":
        model, half = int(stream == "tuned"), dictionary.d_model
        rotated = dictionary.kind == "rotated"
        w_enc = w_enc[:half] * math.sqrt(2) if rotated else w_enc[:half] + w_enc[half:]
        w_dec = pair_rows(dictionary, w_dec)[:, model]
        b_dec = pair_rows(dictionary, b_dec[None])[0, model]
    weights = {
        "W_enc": w_enc,
        "b_enc": b_enc,
        "W_dec": w_dec,
        "b_dec": b_dec,
        "threshold": torch.full_like(b_enc, dictionary.threshold),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, folder / "sae_weights.safetensors")
    cfg = {
        "architecture": "jumprelu",
        "d_in": dictionary.d_model,
        "d_sae": dictionary.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"mneme_kind": dictionary.kind, "mneme_stream": stream, "k": dictionary.k, "seed": dictionary.seed},
    }
    (folder / "cfg.json").write_text(json.dumps(cfg, indent=2) + "\n", encoding="utf-8")


def _read_cfg(path: Path) -> _Cfg:
    try:
        if path.stat().st_size > _MAX_CFG_BYTES:
            raise BrokenWeights(f"{path} is larger than {_MAX_CFG_BYTES} bytes: this is not a dictionary's cfg.json.")
        cfg = _Cfg.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BrokenWeights(f"{path} does not exist: expected a folder written by mneme. Name that folder.") from None
    except OSError as problem:
        raise BrokenWeights(f"{path} cannot be read ({problem.strerror}).") from problem
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BrokenWeights(f"{path} is not a mneme dictionary: {where}: {first['msg']}. Copy or train it again.") from problem
    if min(cfg.d_model, cfg.n_latents) < 1 or cfg.k <= 0 or cfg.threshold < 0:
        raise BrokenWeights(f"{path}: widths and k must be positive and the threshold not negative. Train it again.")
    return cfg


def _check(path: Path, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.dtype != torch.float32 or tuple(tensor.shape) != shape:
        raise BrokenWeights(
            f"{path}: `{name}` is {tensor.dtype} of shape {tuple(tensor.shape)}, expected torch.float32 of shape {shape} by "
            "cfg.json. Copy or train it again."
        )
    if not bool(torch.isfinite(tensor).all()):
        raise BrokenWeights(f"{path}: `{name}` holds NaN or infinite values. Train it again.")
