"""The training loop for what TRL does not cover: AdamW on losses that are functions of the step alone.

A step is a function of weights and step number, so that two runs with equal arguments are equal to the last bit, and one that
was killed goes on from its checkpoint with the same losses. Modes and gradients of the model are the caller's.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from safetensors.torch import load_file
from torch import Tensor

from mneme.models.keeping import Keeping, write_state

Losses = Float[ndarray, "step term"]
Share = Callable[[int], float]
"""Step, from 0 -> share of the learning rate."""


@dataclass(frozen=True)
class Term:
    """One loss: a function of the step alone, given the weights of the model at that moment."""

    name: str
    weight: float
    loss_at: Callable[[int], Float[Tensor, ""]]


@dataclass(frozen=True)
class Schedule:
    """How far and how fast."""

    steps: int
    learning_rate: float
    share: Share
    """Of the learning rate at a step: one of the functions below."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0


def constant(_step: int) -> float:
    """The whole learning rate at every step."""
    return 1.0


def linear_down(steps: int) -> Share:
    """From the whole rate linearly down, to 0 after the last step."""
    return lambda step: 1.0 - step / steps


def up_and_down(steps: int, warmup_share: float = 0.1) -> Share:
    """Linearly up over the first `warmup_share` of the steps, then linearly down, above 0 at the last step."""
    warmup = max(1, round(warmup_share * steps))
    return lambda step: (step + 1) / warmup if step < warmup else (steps - step) / max(1, steps - warmup + 1)


def cosine_down(steps: int, warmup_steps: int, final_share: float) -> Share:
    """Linearly up over `warmup_steps`, then down along half a cosine to `final_share`."""

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(1, steps - warmup_steps)
        return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * done))

    return share


def fit(
    terms: Sequence[Term],
    parameters: Mapping[str, Tensor],
    schedule: Schedule,
    checkpoint: Path | None = None,
    on_step: Callable[[int, list[float]], None] | None = None,
) -> Losses:
    """Train `parameters` in place on the weighted sum of `terms`; the loss of every term at every step, before it was taken.

    Gradients are clipped to norm 1. A term of weight 0 is not computed and reads NaN. With `checkpoint`, the state is kept
    there about once a minute (`Keeping`) and at the end, and training goes on from there. `on_step(step, losses)` is called
    after each step. Errors: BadRun where the state cannot be kept, and what a term raises.
    """
    trained = list(parameters.values())
    optimizer = torch.optim.AdamW(trained, lr=schedule.learning_rate, betas=schedule.betas, weight_decay=schedule.weight_decay)
    history = np.full((schedule.steps, len(terms)), np.nan)
    start = _resume(checkpoint, parameters, optimizer, history) if checkpoint is not None and checkpoint.exists() else 0
    keeping = Keeping()
    for step in range(start, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * schedule.share(step)
        optimizer.zero_grad(set_to_none=True)
        for column, term in enumerate(terms):
            if term.weight > 0:
                with torch.enable_grad():
                    loss = term.loss_at(step)
                    torch.autograd.backward(term.weight * loss)
                history[step, column] = loss.item()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if checkpoint is not None and (keeping.is_due() or step + 1 == schedule.steps):
            _keep(checkpoint, parameters, optimizer, history[: step + 1])
            keeping.kept()
        if on_step is not None:
            on_step(step, history[step].tolist())
    optimizer.zero_grad(set_to_none=True)
    return history


def _keep(path: Path, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, history: Losses) -> None:
    tensors: dict[str, Tensor] = {"losses": torch.from_numpy(history.copy())}
    for name, parameter in parameters.items():
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        for key in ("exp_avg", "exp_avg_sq"):
            # A parameter that no loss reaches has no state; zeros are what it would start from.
            state = optimizer.state[parameter].get(key)
            tensors[f"{key}/{name}"] = torch.zeros_like(parameter) if state is None else state
    write_state(path, tensors)


def _resume(path: Path, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, history: Losses) -> int:
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
