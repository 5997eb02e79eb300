"""What unlearning trains, and how: weights or an adapter, on losses that have to stay finite.

Dropout stays off (the model is in eval mode), so that likelihoods mean the same at every step and a step is a function of
weights, texts and seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mneme.errors import BadOption, UnlearningFailed
from mneme.models.adapters import attach_lora
from mneme.models.architecture import Parts
from mneme.models.fitting import Losses, Schedule, Term, fit, up_and_down
from mneme.models.writers import residual_writers
from mneme.unlearn.settings import UnlearnSettings


class Tunable(NamedTuple):
    """What is trained."""

    parameters: dict[str, nn.Parameter]
    adapter: Any
    """peft's wrapper around the model, or None."""


def prepare(parts: Parts, settings: UnlearnSettings) -> Tunable:
    """Decides what is trained, before any optimizer exists: an adapter on every linear layer, or the weights themselves.

    rmu trains, as published, only the matrices that write to the residual stream last in the chosen block and in the two
    before it (`mlp.down_proj`); with an adapter, all linear layers of these blocks.
    """
    blocks = sorted({at for layer in settings.layers for at in range(max(0, layer - 2), layer + 1)})
    if settings.lora_rank is not None:
        names = _linear_maps(parts, blocks) if blocks else "all-linear"
        adapter = attach_lora(parts.model, settings.lora_rank, seed=settings.seed, targets=names)
        return Tunable({name: p for name, p in adapter.named_parameters() if p.requires_grad}, adapter)
    parts.model.requires_grad_(not blocks)
    writers = residual_writers(parts) if blocks else ()
    for block in blocks:
        if not writers[block]:
            raise BadOption(
                "rmu finds no matrix that writes to the residual stream in this model's blocks. Use --lora, or npo."
            )
        parts.model.get_submodule(writers[block][-1]).weight.requires_grad_(True)
    return Tunable({name: p for name, p in parts.model.named_parameters() if p.requires_grad}, None)


def _linear_maps(parts: Parts, blocks: list[int]) -> list[str]:
    """Names of the linear maps of these blocks."""
    inside = {module for block in blocks for module in parts.blocks[block].modules()}
    return [
        name for name, module in parts.model.named_modules() if module in inside and isinstance(module, nn.Linear | Conv1D)
    ]


def minimise(
    terms: Sequence[Term],
    parameters: Mapping[str, nn.Parameter],
    *,
    steps: int,
    learning_rate: float,
    checkpoint: Path | None = None,
    on_step: Callable[[int, list[float]], None] | None = None,
) -> Losses:
    """Trains `parameters` in place on the weighted sum of `terms` (see `fit`): no weight decay, warm-up over a tenth of the
    steps, then linearly down.

    Errors: UnlearningFailed where a loss is not finite.
    """
    schedule = Schedule(steps, learning_rate, up_and_down(steps), betas=(0.9, 0.95))
    return fit([_finite(term, schedule) for term in terms], parameters, schedule, checkpoint, on_step)


def signature(parameters: Mapping[str, nn.Parameter]) -> Float[ndarray, "tensor 2"]:
    """Sum and sum of squares of every tensor in float64: another one after training means that something moved."""
    with torch.no_grad():
        values = [(float(p.double().sum()), float(p.double().square().sum())) for p in parameters.values()]
    return np.array(values)


def _finite(term: Term, schedule: Schedule) -> Term:
    """The same term, which raises UnlearningFailed where its loss is not finite."""

    def loss_at(step: int) -> Float[Tensor, ""]:
        loss = term.loss_at(step)
        if not bool(torch.isfinite(loss)):
            raise UnlearningFailed(
                f"the {term.name} loss is {loss.item()} at step {step + 1} of {schedule.steps}: training diverged at a "
                f"learning rate of {schedule.learning_rate:g}. Nothing was written. Give a lower --lr, or a method with a "
                "bounded loss (npo, simnpo)."
            )
        return loss

    return replace(term, loss_at=loss_at)
