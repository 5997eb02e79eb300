"""The training loop: what is trained, AdamW, checkpoints from which a killed run goes on with the same losses.

Dropout stays off (the model is in eval mode), so that likelihoods mean the same at every step and a step is a function of
weights, texts and seed.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mneme.errors import BadOption, BadRun, UnlearningFailed, one_line
from mneme.models.architecture import Parts
from mneme.unlearn.objective import Term
from mneme.unlearn.settings import Settings

Losses = Float[ndarray, "step term"]
_CHECKPOINTS = 10
"""A run keeps its state about so many times."""


class Schedule(NamedTuple):
    """How far and how fast."""

    steps: int
    learning_rate: float
    warmup_share: float = 0.1
    max_grad_norm: float = 1.0

    def rate(self, step: int) -> float:
        """Learning rate of a step: linearly up over the warm-up, then linearly down, above 0 at the last step."""
        warmup = max(1, round(self.warmup_share * self.steps))
        share = (step + 1) / warmup if step < warmup else (self.steps - step) / max(1, self.steps - warmup + 1)
        return self.learning_rate * share


class Tunable(NamedTuple):
    """What is trained."""

    parameters: dict[str, nn.Parameter]
    adapter: Any
    """peft's wrapper around the model, or None."""


def prepare(parts: Parts, settings: Settings) -> Tunable:
    """Decides what is trained, before any optimizer exists: an adapter on every linear layer, or the weights themselves.

    rmu trains, as published, only the matrices that write to the residual stream at the end of the chosen block and of the two
    before it (`mlp.down_proj`); with an adapter, all linear layers of these blocks.
    """
    blocks = sorted({at for layer in settings.layers for at in range(max(0, layer - 2), layer + 1)})
    if settings.lora_rank is not None:
        adapter = _adapted(parts, settings.lora_rank, blocks, settings.seed)
        return Tunable({name: p for name, p in adapter.named_parameters() if p.requires_grad}, adapter)
    parts.model.requires_grad_(not blocks)
    for block in blocks:
        writer_of(parts.blocks[block], parts.width).requires_grad_(True)
    return Tunable({name: p for name, p in parts.model.named_parameters() if p.requires_grad}, None)


def _adapted(parts: Parts, rank: int, blocks: list[int], seed: int) -> Any:
    """peft's wrapper with a fresh adapter on every linear layer, or on those of `blocks` where any are named."""
    inside = {
        id(module) for block in blocks for module in parts.blocks[block].modules() if isinstance(module, nn.Linear | Conv1D)
    }
    names = [name for name, module in parts.model.named_modules() if id(module) in inside]
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=names or "all-linear", task_type="CAUSAL_LM"
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings():  # peft's own affair
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False", category=UserWarning)
        return get_peft_model(parts.model, config).eval()


def writer_of(block: nn.Module, width: int) -> nn.Parameter:
    """The last matrix of a block with an output of `width`: what its feed-forward part writes to the residual stream.

    Errors: BadOption where the block has none.
    """
    found = None
    for module in block.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim == 2:
            outputs = weight.shape[1] if isinstance(module, Conv1D) else weight.shape[0]
            found = weight if outputs == width else found
    if found is None:
        raise BadOption("rmu finds no matrix that writes to the residual stream in this model's blocks. Use --lora, or npo.")
    return found


def train(
    terms: Sequence[Term],
    parameters: Mapping[str, nn.Parameter],
    schedule: Schedule,
    checkpoint: Path | None = None,
    on_step: Callable[[int, list[float]], None] | None = None,
) -> Losses:
    """Trains `parameters` in place on the weighted sum of `terms`; the loss of every term at every step, before it was taken.

    AdamW without weight decay, gradients clipped. A term of weight 0 is not computed and reads NaN. With `checkpoint`, the
    state is kept there ten times a run, and training goes on from it where it exists. `on_step(step, losses)` is called
    after each step.

    Errors: UnlearningFailed where a loss is not finite.
    """
    trained = list(parameters.values())
    optimizer = torch.optim.AdamW(trained, lr=schedule.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    history = np.full((schedule.steps, len(terms)), np.nan)
    start = _resume(checkpoint, parameters, optimizer, history) if checkpoint is not None and checkpoint.exists() else 0
    every = max(1, schedule.steps // _CHECKPOINTS)
    for step in range(start, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        optimizer.zero_grad(set_to_none=True)
        for column, term in enumerate(terms):
            if term.weight > 0:
                loss = term.loss_at(step)
                history[step, column] = loss.item()
                _require_finite(history[step, column], step, term, schedule)
                torch.autograd.backward(term.weight * loss)
        torch.nn.utils.clip_grad_norm_(trained, schedule.max_grad_norm)
        optimizer.step()
        if checkpoint is not None and ((step + 1) % every == 0 or step + 1 == schedule.steps):
            _keep(checkpoint, parameters, optimizer, history[: step + 1])
        if on_step is not None:
            on_step(step, history[step].tolist())
    optimizer.zero_grad(set_to_none=True)
    return history


def signature(parameters: Mapping[str, nn.Parameter]) -> Float[ndarray, "tensor 2"]:
    """Sum and sum of squares of every tensor in float64: another one after training means that something moved."""
    with torch.no_grad():
        values = [(float(p.double().sum()), float(p.double().square().sum())) for p in parameters.values()]
    return np.array(values)


def _require_finite(loss: float, step: int, term: Term, schedule: Schedule) -> None:
    if not np.isfinite(loss):
        raise UnlearningFailed(
            f"the {term.name} loss is {loss} at step {step + 1} of {schedule.steps}: training diverged at a learning rate "
            f"of {schedule.learning_rate:g}. Nothing was written. Give a lower --lr, or a method with a bounded loss "
            "(npo, simnpo)."
        )


def _keep(path: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, history: Losses) -> None:
    tensors: dict[str, Tensor] = {"losses": torch.from_numpy(history.copy())}
    for name, parameter in parameters.items():
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        for key in ("exp_avg", "exp_avg_sq"):
            # A parameter that no loss reaches has no state; zeros are what it would start from.
            state = optimizer.state[parameter].get(key)
            tensors[f"{key}/{name}"] = torch.zeros_like(parameter) if state is None else state
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".mneme-{path.name}")
    try:
        save_file(tensors, draft)
        os.replace(draft, path)
    except (OSError, SafetensorError) as error:
        draft.unlink(missing_ok=True)
        raise BadRun(
            f"Cannot keep the state of training in {path} ({one_line(error)}). Free some space or give another folder with "
            "--out."
        ) from error


def _resume(path: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, history: Losses) -> int:
    """Puts weights, optimizer and losses back; the number of finished steps."""
    tensors = load_file(path)
    steps = len(tensors["losses"])
    history[:steps] = tensors["losses"].numpy()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight/{name}"])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(steps)),
                **{key: tensors[f"{key}/{name}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")},
            }
    return steps
