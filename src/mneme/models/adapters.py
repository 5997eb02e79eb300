"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685) that mneme itself puts on a model: made, switched, seen through.

An adapter in a folder is read by `models/adapter_files.py`.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel


def lora_config(rank: int, targets: Sequence[str] | Literal["all-linear"] = "all-linear") -> Any:
    """peft's configuration of a LoRA of this rank on the named modules; its factors count twofold, whatever the rank (alpha =
    2 rank, no dropout)."""
    from peft import LoraConfig

    names = targets if isinstance(targets, str) else list(targets)
    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=names, task_type="CAUSAL_LM")


def attach_lora(
    model: PreTrainedModel, rank: int, *, seed: int, targets: Sequence[str] | Literal["all-linear"] = "all-linear"
) -> Any:
    """peft's wrapper of `model` with a fresh LoRA, drawn by `seed`, in eval mode; only its factors require a gradient.

    Nobody else's random numbers are touched. Until it is trained it changes nothing.
    """
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]), _quiet_peft():
        torch.manual_seed(seed)
        return get_peft_model(model, lora_config(rank, targets)).eval()


def detach_lora(adapted: Any) -> None:
    """Take off what `attach_lora` put on, so that the model has its own weights and modules again."""
    model = adapted.unload()
    if hasattr(model, "peft_config"):
        del model.peft_config


def inner_model(model: Any) -> PreTrainedModel:
    """The transformers model inside peft's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "disable_adapter") else model


@contextmanager
def adapter_off(model: nn.Module | None) -> Iterator[None]:
    """Without its adapter meanwhile, where the model is peft's wrapper; else (and for None) nothing changes."""
    if hasattr(model, "disable_adapter"):
        with switched_off(model):
            yield
    else:
        yield


@contextmanager
def switched_off(wrapped: Any) -> Iterator[None]:
    """peft's `disable_adapter`, without asking every module for its state before: that took 75 of the 97 ms that switching an
    adapter of 210 modules off and on takes. Layers that are off already stay as they are."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    config = wrapped.active_peft_config
    if config.is_prompt_learning or config.is_adaption_prompt:  # no layers of peft's that are switched each
        with wrapped.disable_adapter():
            yield
        return
    kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    layers = [module for module in wrapped.modules() if isinstance(module, kinds) and not module.disable_adapters]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """Without two warnings that are peft's own affair: a name of transformers that changed, a setting that it sets itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False", category=UserWarning)
        yield
