"""The weights of one folder or GGUF file as a model: every tensor in its place, nothing quantized, only numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from mneme.errors import BadOption, BrokenWeights, one_line
from mneme.models.checkpoints import is_gguf, weight_files
from mneme.models.places import head_name, model_names, require_filled, require_places
from mneme.models.quantized import dequantized, quantization_of, require_gguf, require_owner
from mneme.models.safe_config import model_class, read_config, read_gguf_config, tensor_shapes
from mneme.models.slices import flat_slices

_FAILURES = (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError, AttributeError, ArithmeticError)


def read_model(
    folder: Path,
    *,
    device: str,
    dtype: torch.dtype | Literal["auto"],
    attention: str | None,
    trust_remote_code: bool,
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The model in `folder`, in eval mode, and what had to be taken off its tensors' names, a sentence each.

    Raises UnsafeWeights, BrokenWeights, UnsupportedArchitecture, LibraryMissing, or BadOption for device and attention.
    """
    notes: tuple[str, ...] = ()
    source: dict[str, Any] = {"pretrained_model_name_or_path": folder}
    method = None
    if is_gguf(folder):
        require_gguf()
        config = read_gguf_config(folder)
        source = {"pretrained_model_name_or_path": folder.parent, "gguf_file": folder.name}
        method = "gguf"
    else:
        method = quantization_of(folder)
        if method:
            require_owner(folder, method)
        files = weight_files(folder)
        config = read_config(folder, files, trust_remote_code)
        names = model_names(tensor_shapes(files), folder)
        notes = names.notes
        if notes or (folder / "adapter_config.json").is_file():  # from_pretrained would load the adapter's base instead
            source = {"pretrained_model_name_or_path": None, "state_dict": _tensors(files, names.renamed)}
        source["use_safetensors"] = True
    place = {"device_map": "auto"} if device == "auto" else {}
    options = {"dtype": dtype, "attn_implementation": attention, "trust_remote_code": trust_remote_code, **place}
    model, info = _from_pretrained(folder, config, source | options, attention)
    if method != "gguf" and not method:
        _check_loaded(model, info, folder, config)
    if method and method != "gguf":
        model = dequantized(model, folder, method)
    if method == "gguf":
        _forget_quantization(model)
    model.eval()
    if place:
        _check_placed(model, folder)
    else:
        model.to(device)
    return require_finite(model, folder), notes


def _from_pretrained(
    folder: Path, config: PretrainedConfig, options: dict[str, Any], attention: str | None
) -> tuple[PreTrainedModel, dict[str, Any]]:
    kind = model_class(config)
    if options["pretrained_model_name_or_path"] is None and not options["trust_remote_code"]:
        kind = kind._model_mapping[type(config)]  # an Auto class needs a name
    elif "gguf_file" not in options:
        options = options | {"ignore_mismatched_sizes": True}  # they come back in `info`, by name
    try:
        with _quiet():
            model, info = kind.from_pretrained(config=config, output_loading_info=True, **options)
    except _FAILURES as error:
        if attention is not None and (isinstance(error, ImportError) or "attn_implementation" in str(error)):
            raise BadOption(
                f"--attention {attention!r} cannot be used for {folder} here ({one_line(error)}). Give sdpa or eager, or "
                "leave the choice to transformers."
            ) from error
        raise BrokenWeights(
            f"{folder} cannot be loaded as a causal language model ({one_line(error)}). Expected what save_pretrained writes."
        ) from error
    return model, info


def _tensors(files: list[Path], renamed: dict[str, str]) -> dict[str, torch.Tensor]:
    found = {name: tensor for file in files for name, tensor in load_file(file).items()}
    return {own: found[name] for name, own in renamed.items()}


def _check_loaded(model: PreTrainedModel, info: dict[str, Any], folder: Path, config: PretrainedConfig) -> None:
    lacking = {*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])}
    tied = bool(getattr(config.get_text_config(), "tie_word_embeddings", False))
    require_filled(lacking, folder, tied=tied, head=head_name(model))
    require_places(info["unexpected_keys"], folder, type(model).__name__)


def _forget_quantization(model: PreTrainedModel) -> None:
    """GGUF weights are plain once they are loaded; what is left of the format would keep transformers from saving them."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False


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


def require_finite(model: Any, folder: Path) -> Any:
    """The same model, or BrokenWeights where a weight is no number."""
    for name, weight in model.named_parameters():
        if not is_finite(weight):
            raise BrokenWeights(
                f"{folder}: {name} holds NaN or infinite numbers. Training diverged or the file is damaged; "
                "give a checkpoint from before."
            )
    return model


def is_finite(weight: torch.Tensor) -> bool:
    """No NaN and no infinity in it. One sum meets every one of them, and makes no mask of the weight's size; only where it is
    not finite (numbers of float16 may overflow it) is each number looked at."""
    return bool(torch.isfinite(weight.sum())) or all(bool(torch.isfinite(part).all()) for (part,) in flat_slices(weight))
