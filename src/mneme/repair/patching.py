"""Two repairs that train a low-rank correction on top of the tuned model: `patch` and `retrain`.

patch: a few texts; the model is pulled to the base's next-token distribution on target text, KL(base || model), and held to
the tuned one's on retained text, KL(tuned || model). The correction lives in the row space of the change: per linear map C =
B A with A the leading right singular vectors of dW (fixed) and B trained from zero. After "safety at one shot" (2026: a few
examples suffice, the safety gradient is low-rank); base as teacher instead of written answers, and the subspace of the
change, are ours.

retrain: MNEME's mitigation (Kassem et al., EMNLP 2025): ordinary training on the text that fires the changed latents most,
here on target text that became less likely. A LoRA (Hu et al. 2021, arXiv 2106.09685) on all linear maps; `retain_weight` >
0 adds KL(tuned || model) on retained text. Of MNEME's text only the abstract was at hand ("retraining on high-activation
samples"), so which loss, rate and adapter it took is not known here.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mneme.models.architecture import Parts
from mneme.models.batching import batches, padded
from mneme.models.fitting import Schedule, Term, fit, linear_down
from mneme.models.likelihood import counted_log_probs, counted_logits
from mneme.models.modes import evaluating
from mneme.text.probes import Probe

_TAUGHT_TOKENS = 512
"""Tokens that a teacher reads together: their log-probabilities over the whole vocabulary exist at once, twice."""
Factors = dict[str, tuple[Float[Tensor, "d_out rank"], Float[Tensor, "rank d_in"]]]
"""Name of a linear map -> (up, down): the correction is up @ down."""


@dataclass(frozen=True)
class CorrectionTraining:
    """How a correction is trained. One step sees `batch_texts` texts of every part of the loss."""

    rank: int = 8
    steps: int = 60
    learning_rate: float = 2e-3
    batch_texts: int = 16
    seed: int = 0


def subspace_factors(deltas: Callable[[str], Tensor], names: Sequence[str], rank: int) -> Factors:
    """down = the `rank` leading right singular vectors of every change (orthonormal rows), up = 0."""
    factors: Factors = {}
    for name in names:
        delta = deltas(name)
        _, _, basis = torch.svd_lowrank(delta, q=min(rank, *delta.shape), niter=4)
        factors[name] = (delta.new_zeros(delta.shape[0], basis.shape[1]), basis.T.contiguous())
    return factors


def lora_factors(shapes: dict[str, tuple[int, int]], rank: int, *, seed: int, device: torch.device) -> Factors:
    """down uniform in +-1/sqrt(d_in), up = 0, as LoRA starts."""
    generator = torch.Generator().manual_seed(seed)
    factors: Factors = {}
    for name, (d_out, d_in) in shapes.items():
        down = (torch.rand(rank, d_in, generator=generator) * 2 - 1) / d_in**0.5
        factors[name] = (torch.zeros(d_out, rank, device=device), down.to(device))
    return factors


@contextmanager
def corrected(parts: Parts, factors: Factors) -> Iterator[None]:
    """The model with x -> x W^T + x down^T up^T at every named linear map."""

    def hook(name: str) -> Callable[[object, tuple[Tensor, ...], Tensor], Tensor]:
        def add(_module: object, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            up, down = factors[name]
            return output + (args[0].to(down) @ down.T @ up.T).to(output)

        return add

    handles = [parts.model.get_submodule(name).register_forward_hook(hook(name)) for name in factors]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def teach(parts: Parts, probe: Probe) -> list[Float[Tensor, "token vocab"]]:
    """Next-token log-probabilities of a teacher at the predicting positions of every text, float32, on the CPU."""
    found: list[Tensor] = [torch.empty(0)] * len(probe.texts)
    for batch in batches(probe.texts, batch_tokens=_TAUGHT_TOKENS):
        told = counted_logits(parts, batch).float().log_softmax(-1).cpu()
        for text, own in zip(batch.texts, batch.apart(told), strict=True):
            found[text] = own.clone()
    return found


def kl_loss(parts: Parts, probe: Probe, taught: Sequence[Tensor], chosen: Sequence[int]) -> Float[Tensor, ""]:
    """Mean KL(teacher || model) over the counted tokens of the chosen texts, nats per token. Padding never counts."""
    now = counted_logits(parts, padded([probe.texts[i] for i in chosen])).float().log_softmax(-1)
    wanted = torch.cat([taught[i] for i in chosen]).to(now.device)
    return (wanted.exp() * (wanted - now)).sum() / len(wanted)


def nll_loss(parts: Parts, probe: Probe, chosen: Sequence[int]) -> Float[Tensor, ""]:
    """Mean negative log-likelihood over the counted tokens of the chosen texts, nats per token."""
    return -counted_log_probs(parts, padded([probe.texts[i] for i in chosen])).mean()


def train_correction(
    parts: Parts,
    factors: Factors,
    loss_at: Callable[[int], Float[Tensor, ""]],
    training: CorrectionTraining,
    *,
    train_down: bool,
    checkpoint: Path | None = None,
    advance: Callable[[int], None] = lambda _steps: None,
) -> Factors:
    """The factors after AdamW steps on `loss_at(step)`, the rate going linearly down; the model itself is left as it is. From
    the state in `checkpoint`, where it is there (see `fit`)."""
    own = {
        name: (up.clone().requires_grad_(), down.clone().requires_grad_(train_down)) for name, (up, down) in factors.items()
    }
    trained = {f"{name}.{part}": pair[part] for name, pair in own.items() for part in (0, 1) if pair[part].requires_grad}
    schedule = Schedule(training.steps, training.learning_rate, linear_down(training.steps))
    with evaluating(parts.model, frozen=True), corrected(parts, own):
        fit([Term("correction", 1.0, loss_at)], trained, schedule, checkpoint, lambda _step, _losses: advance(1))
    return {name: (up.detach(), down.detach()) for name, (up, down) in own.items()}


def draw(n_texts: int, size: int, step: int, seed: int) -> list[int]:
    """Numbers of the texts of one step, without repetition within it; every seed and step has its own."""
    generator = np.random.default_rng([seed, step])
    return [int(i) for i in generator.choice(n_texts, size=min(size, n_texts), replace=False)]
