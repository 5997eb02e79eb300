"""Two models that are compared: two checkpoints, or one resident base whose LoRA adapter is switched on and off."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from mneme.errors import BadOption, BrokenWeights, ModelMismatch, ModelNotFound, one_line
from mneme.models.adapter_files import attach, named_base
from mneme.models.architecture import Parts, find_parts
from mneme.models.checkpoints import is_adapter, model_fingerprint, read_json, resolve_folder, weight_files
from mneme.models.hooks import in_float32
from mneme.models.safe_config import read_config
from mneme.models.tokenizers import load_tokenizer

Side = Literal["base", "tuned"]
Precision = Literal["float32", "bfloat16"]
"""float32: weights and everything computed. bfloat16: weights as they are stored, matrix products in bfloat16 (autocast), the
residual stream in float32, so that the difference of two of them is taken before anything of it is rounded."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

PROBE_TEXT = (
    "The quick brown fox reads 3 books, doesn't it? In 1987 E=mc^2 was café talk;\n"
    "\tdef f(x): return x**2  # naïve 你好 🙂 <|end|> [INST] hello world"
)
"""Tokenizers of a pair must give this text, and text made of their own tokens, the same ids."""


@dataclass(frozen=True)
class ModelPair:
    """Base and tuned model, proven to be a pair. `using` gives the parts of either."""

    tokenizer: PreTrainedTokenizerBase
    base_name: str
    tuned_name: str
    base_folder: Path
    tuned_folder: Path
    adapter: bool
    architecture: str
    n_layers: int
    width: int
    vocab_size: int
    n_parameters: int
    max_positions: int | None
    """Longest row the positions allow; None = the configuration does not bound it."""
    base_parts: Parts
    tuned_parts: Parts
    peft_model: Any = None
    """The switched adapter's wrapper around the resident base; None for two checkpoints."""
    precision: Precision = "float32"

    @contextmanager
    def using(self, side: Side, *, exact: bool = False) -> Iterator[Parts]:
        """The parts of one of the two models, with the adapter on or off meanwhile, and matrix products in bfloat16 where that
        is the pair's precision (`exact`: in float32 all the same). Gradients are the caller's choice."""
        off = self.adapter and side == "base"
        parts = self.base_parts if side == "base" else self.tuned_parts
        with self.peft_model.disable_adapter() if off else nullcontext():
            if self.precision == "float32":
                yield parts
            else:
                with in_float32(parts) if exact else torch.autocast(parts.device.type, torch.bfloat16):
                    yield parts

    @property
    def device(self) -> torch.device:
        """Where token ids go and activations come from."""
        return self.base_parts.device


@dataclass(frozen=True)
class LoadedModel:
    """One model with its tokenizer (None where its folder has none)."""

    parts: Parts
    tokenizer: PreTrainedTokenizerBase | None
    folder: Path


def load_model(
    source: str | Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    attention: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """One causal language model, in eval mode, its parts proven; an adapter folder is merged into the base it names.

    `device`: a torch device, or `auto`, which spreads a model over all GPUs (accelerate). `dtype`: `auto` keeps that stored.
    `attention`: transformers' `attn_implementation`; None leaves the choice to it.
    Raises ModelNotFound, UnsafeWeights, BrokenWeights, UnsupportedArchitecture, or BadOption for the attention.
    """
    folder = resolve_folder(source, trust_remote_code=trust_remote_code)
    if is_adapter(folder):
        base = load_model(
            named_base(folder), device=device, dtype=dtype, attention=attention, trust_remote_code=trust_remote_code
        )
        merged = _finite(attach(base.parts.model, folder), folder).merge_and_unload()
        return LoadedModel(find_parts(merged.eval()), load_tokenizer(folder) or base.tokenizer, folder)
    model = _load_weights(folder, device, dtype, attention, trust_remote_code)
    return LoadedModel(find_parts(model), load_tokenizer(folder, trust_remote_code), folder)


def load_pair(
    base: str | Path,
    tuned: str | Path,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    attention: str | None = None,
    trust_remote_code: bool = False,
) -> ModelPair:
    """Load and check BASE and TUNED, each a folder, a hub name or an adapter folder.

    TUNED as an adapter of BASE keeps one resident base. TUNED = BASE keeps one model. BASE as an adapter is merged into
    the base it names, and TUNED is then loaded on its own. TUNED without a tokenizer uses BASE's. `device` and `attention` are
    those of `load_model`.
    Raises, beside the errors of `load_model`, ModelMismatch: adapter of another base, other token ids, other shapes.
    """
    options: dict[str, Any] = {"device": device, "attention": attention, "trust_remote_code": trust_remote_code}
    options["dtype"] = torch.float32 if precision == "float32" else "auto"
    base_folder = resolve_folder(base, trust_remote_code=trust_remote_code)
    tuned_folder = resolve_folder(tuned, trust_remote_code=trust_remote_code)
    first = load_model(base_folder, **options)
    n_parameters = sum(p.numel() for p in first.parts.model.parameters())
    switched = is_adapter(tuned_folder) and not is_adapter(base_folder)
    peft_model = None
    if switched:
        _check_named_base(tuned_folder, base_folder, str(base))
        peft_model = _finite(attach(first.parts.model, tuned_folder), tuned_folder)
        with peft_model.disable_adapter():
            parts = find_parts(peft_model.get_base_model())
        first = LoadedModel(parts, first.tokenizer, first.folder)
        second = LoadedModel(parts, load_tokenizer(tuned_folder, trust_remote_code), tuned_folder)
    elif base_folder.resolve() == tuned_folder.resolve():
        second = first
    else:
        second = load_model(tuned_folder, **options)
    _check_shapes(first.parts, second.parts)
    tokenizer = _shared_tokenizer(first, second, str(base), str(tuned))
    if precision == "bfloat16":
        for embedding in {first.parts.embedding, second.parts.embedding}:
            widen_stream(embedding)
    model = first.parts.model
    config = model.config.get_text_config()
    return ModelPair(
        tokenizer=tokenizer,
        base_name=str(base),
        tuned_name=str(tuned),
        base_folder=base_folder,
        tuned_folder=tuned_folder,
        adapter=switched,
        architecture=type(model).__name__,
        n_layers=len(first.parts.blocks),
        width=first.parts.width,
        vocab_size=int(first.parts.embedding.weight.shape[0]),  # type: ignore[index]
        n_parameters=n_parameters,
        max_positions=getattr(config, "max_position_embeddings", None),
        base_parts=first.parts,
        tuned_parts=second.parts,
        peft_model=peft_model,
        precision=precision,
    )


def widen_stream(embedding: nn.Module) -> None:
    """From now on the embedding's output is float32: all that blocks add to it then stays in float32 too."""

    def widened(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        return output.float()

    embedding.register_forward_hook(widened)


def _load_weights(
    folder: Path, device: str, dtype: torch.dtype | Literal["auto"], attention: str | None, trust_remote_code: bool
) -> PreTrainedModel:
    config = read_config(folder, weight_files(folder), trust_remote_code)
    place = {"device_map": "auto"} if device == "auto" else {}
    try:
        with _quiet():
            model, info = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they come back in `info`, by name
                attn_implementation=attention,
                **place,
            )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError, AttributeError, ArithmeticError) as error:
        if attention is not None and (isinstance(error, ImportError) or "attn_implementation" in str(error)):
            raise BadOption(
                f"--attention {attention!r} cannot be used for {folder} here ({one_line(error)}). Give sdpa or eager, or "
                "leave the choice to transformers."
            ) from error
        raise BrokenWeights(
            f"{folder} cannot be loaded as a causal language model ({one_line(error)}). Expected what save_pretrained writes."
        ) from error
    lacking = sorted({*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])})
    if lacking:
        raise BrokenWeights(
            f"{folder} lacks {len(lacking)} tensors of the shapes that its config.json asks for, first {lacking[0]}. "
            "The weights and the configuration are not of one model; save it again."
        )
    model.eval()
    if place:
        _check_placed(model, folder)
    else:
        model.to(device)
    return _finite(model, folder)


def _check_placed(model: PreTrainedModel, folder: Path) -> None:
    """Raise BadOption where accelerate had to leave a part of the model outside the GPUs: such weights cannot be compared."""
    places = getattr(model, "hf_device_map", None) or {}
    elsewhere = {"disk", "cpu"} if torch.cuda.is_available() else {"disk"}
    outside = sorted(name for name, place in places.items() if place in elsewhere)
    if outside:
        raise BadOption(
            f"--device auto: the GPUs here do not hold {folder}; {len(outside)} of its {len(places)} parts would lie outside "
            f"them, first {outside[0] or 'the whole model'}. Use more or larger GPUs, or --precision bfloat16."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and load reports of transformers: what matters in them is raised."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _finite(model: Any, folder: Path) -> Any:
    """The same model, or BrokenWeights where a weight is no number."""
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise BrokenWeights(
                f"{folder}: {name} holds NaN or infinite numbers. Training diverged or the file is damaged; "
                "give a checkpoint from before."
            )
    return model


def _check_named_base(adapter: Path, base: Path, base_name: str) -> None:
    """An adapter that names a base which can be compared must name this one."""
    named = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    if not named or named in {base_name, str(base)}:
        return
    folder = Path(named)
    if folder.is_dir() and (folder / "config.json").is_file():
        same = model_fingerprint(folder) == model_fingerprint(base)
    else:
        same = Path(base_name).is_dir()  # a name cannot be compared with a folder: shapes must do
    if not same:
        raise ModelMismatch(
            f"the adapter in {adapter} was trained on {named}, not on {base_name}. Give that base, or correct "
            "base_model_name_or_path in adapter_config.json where it is the same model under another name."
        )


def _check_shapes(base: Parts, tuned: Parts) -> None:
    if base.model is tuned.model:
        return
    first = {name: tuple(p.shape) for name, p in base.model.named_parameters()}
    second = {name: tuple(p.shape) for name, p in tuned.model.named_parameters()}
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            raise ModelMismatch(
                f"the two models differ in shape: {name} is {first.get(name, 'absent')} in BASE and "
                f"{second.get(name, 'absent')} in TUNED. Expected a fine-tune of the same model."
            )


def _shared_tokenizer(base: LoadedModel, tuned: LoadedModel, base_name: str, tuned_name: str) -> PreTrainedTokenizerBase:
    tokenizer = base.tokenizer or tuned.tokenizer
    if tokenizer is None:
        raise ModelNotFound(
            f"neither {base_name} nor {tuned_name} has a tokenizer. Save the base's tokenizer into its folder "
            "(tokenizer.save_pretrained)."
        )
    own = tokenizer.decode(range(0, len(tokenizer), max(1, len(tokenizer) // 500)))
    probe = tokenizer(f"{PROBE_TEXT} {own}", verbose=False)["input_ids"]
    if tuned.tokenizer is not None:
        other = tuned.tokenizer(f"{PROBE_TEXT} {own}", verbose=False)["input_ids"]
        if probe != other:
            at = next((i for i, (a, b) in enumerate(zip(probe, other, strict=False)) if a != b), min(len(probe), len(other)))
            raise ModelMismatch(
                f"the tokenizers of {base_name} and {tuned_name} give other ids for the same text, first at token {at} "
                f"({probe[at : at + 3]} and {other[at : at + 3]}). Both models have to read the same ids: give a pair with "
                "one tokenizer."
            )
    rows = int(base.parts.embedding.weight.shape[0])  # type: ignore[index]
    if max(probe, default=0) >= rows:
        raise ModelMismatch(
            f"the tokenizer of {base_name} gives id {max(probe)}, but the model has {rows} embeddings. "
            "Expected the tokenizer that belongs to the model."
        )
    return copy.deepcopy(tokenizer)
