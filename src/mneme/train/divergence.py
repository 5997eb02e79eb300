"""Cross-entropy and KL of a chunk of logits with the gradient written out, so that all of them share one softmax.

Autograd keeps and fills a token x vocabulary matrix for nearly every operation; on a CPU that costs as much as a sixth of a
training step of a model whose vocabulary is large beside its width. With p = softmax(l), q the base's probabilities and
r = log p - log q: d(-log p[y])/dl = p - 1[y]; d KL(p || q)/dl = p (r - KL); d KL(q || p)/dl = p - q.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Softmaxed(NamedTuple):
    """The next-token distributions of a chunk, at least float32."""

    probs: Float[Tensor, "token vocab"]
    log_probs: Float[Tensor, "token vocab"]


class Sloped(NamedTuple):
    """One number a token, and its gradient in the logits of that token. The gradient is the caller's to overwrite."""

    values: Float[Tensor, " token"]
    slope: Float[Tensor, "token vocab"]


def softmaxed(logits: Float[Tensor, "token vocab"]) -> Softmaxed:
    """Both forms of softmax, of one exponential."""
    log_probs = precise(logits).log_softmax(-1)
    return Softmaxed(log_probs.exp(), log_probs)


def kl_of_tuned(tuned: Softmaxed, base: Float[Tensor, "token vocab"]) -> Sloped:
    """KL(tuned || base) in nats, and its gradient in the tuned logits."""
    ratio = precise(base).log_softmax(-1)
    torch.sub(tuned.log_probs, ratio, out=ratio)
    values = torch.linalg.vecdot(tuned.probs, ratio)
    return Sloped(values, ratio.sub_(values[:, None]).mul_(tuned.probs))


def kl_of_base(tuned: Softmaxed, base: Float[Tensor, "token vocab"]) -> Sloped:
    """KL(base || tuned) in nats, and its gradient in the tuned logits."""
    log_base = precise(base).log_softmax(-1)
    probs = log_base.exp()
    values = torch.linalg.vecdot(probs, log_base.sub_(tuned.log_probs))
    return Sloped(values, torch.sub(tuned.probs, probs, out=probs))


def nats_of(tuned: Softmaxed, targets: Int[Tensor, " token"]) -> Sloped:
    """Cross-entropy at `targets` in nats, and its gradient; the gradient takes the place of `tuned.probs`."""
    rows = torch.arange(len(targets), device=targets.device)
    values = -tuned.log_probs[rows, targets]
    tuned.probs[rows, targets] -= 1
    return Sloped(values, tuned.probs)


def precise(tensor: Tensor) -> Tensor:
    """Float64 as it is, everything else in float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
