"""Changes of weights without data, as pure functions of weights: noise, pruning, rounding, merging, shuffled changes.

All but noise leave vectors (norms) and the embedding alone, as the tools that users prune and quantise with do.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Weights = dict[str, Tensor]
ROUND_GROUP = 64
"""Entries of a row that share one scale when rounding; 32 to 128 are usual."""


def is_matrix(name: str, weight: Tensor) -> bool:
    """True for the matrices inside blocks."""
    return weight.ndim == 2 and "embed" not in name and "lm_head" not in name


def noise(base: Mapping[str, Tensor], size: float, seed: int) -> Weights:
    """Gaussian noise on every matrix inside the blocks, `size` times the matrix in Frobenius norm."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in sorted(base):
        weight = base[name]
        if is_matrix(name, weight):
            drawn = torch.randn(weight.shape, generator=generator)
            weight = weight + drawn * (size * weight.norm() / math.sqrt(weight.numel()))
        found[name] = weight
    return found


def prune(base: Mapping[str, Tensor], share: float) -> Weights:
    """The smallest `share` of every matrix inside the blocks set to 0, by absolute value (magnitude pruning, Han et al. 2015,
    arXiv 1506.02626)."""
    return {name: _pruned(weight, share) if is_matrix(name, weight) else weight for name, weight in base.items()}


def rounded(base: Mapping[str, Tensor], bits: int) -> Weights:
    """Every matrix inside the blocks rounded to `bits` bits with one symmetric scale for 64 entries of a row, and back."""
    return {name: _rounded(weight, bits) if is_matrix(name, weight) else weight for name, weight in base.items()}


def mean_weights(base: Mapping[str, Tensor], tuned: Sequence[Mapping[str, Tensor]]) -> Weights:
    """The mean of several fine-tunes (Wortsman et al. 2022, arXiv 2203.05482)."""
    return {name: torch.stack([one[name] for one in tuned]).mean(0) for name in base}


def scaled(base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], factor: float) -> Weights:
    """base + factor (tuned - base): a fine-tune taken part of the way, or beyond its end (Ilharco et al. 2023, 2212.04089)."""
    return {name: weight + factor * (tuned[name] - weight) for name, weight in base.items()}


def permuted(base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], seed: int) -> Weights:
    """The change of every tensor with its entries in random order: the same norm, tensor by tensor, and no purpose."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in sorted(base):
        change = (tuned[name] - base[name]).flatten()
        order = torch.randperm(change.numel(), generator=generator)
        found[name] = base[name] + change[order].view(base[name].shape)
    return found


def _pruned(weight: Float[Tensor, "out in"], share: float) -> Float[Tensor, "out in"]:
    count = int(share * weight.numel())
    if count == 0:
        return weight
    threshold = weight.abs().flatten().kthvalue(count).values
    return torch.where(weight.abs() <= threshold, torch.zeros_like(weight), weight)


def _rounded(weight: Float[Tensor, "out in"], bits: int) -> Float[Tensor, "out in"]:
    groups = weight.reshape(-1, ROUND_GROUP) if weight.numel() % ROUND_GROUP == 0 else weight
    most = 2 ** (bits - 1) - 1
    scale = groups.abs().amax(-1, keepdim=True).clamp_min(1e-12) / most
    near: Tensor = (groups / scale).round().clamp(-most - 1, most) * scale
    return near.view(weight.shape)
