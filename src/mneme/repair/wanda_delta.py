"""Masking the change itself by what the target uses and the retained text does not.

Wanda's score (Sun et al. 2024, arXiv 2306.11695; Antidote, arXiv 2408.09600) moved from the weight to the change and made a
contrast, which is ours: S_ij = |dW_ij| sqrt(a_j) / (sqrt(b_j) + eps), a and b the mean squared inputs on target and retained
text. Strength 1 is the base model for any pair, with or without an adapter.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mneme.repair.strength import check_strength

_FLOOR = 1e-3
"""eps as a share of the layer's root mean square input on the retained text."""


def wanda_delta(
    delta: Float[Tensor, "d_out d_in"],
    target_square: Float[Tensor, " d_in"],
    retain_square: Float[Tensor, " d_in"],
    strength: float,
) -> Float[Tensor, "d_out d_in"]:
    """`delta` with the round(strength * d_in) highest contrasts of every output row set to zero.

    Mean squares are of the layer's inputs at the tokens that count, raw units.
    """
    n_removed = round(check_strength(strength) * delta.shape[1])
    retain = retain_square.to(delta)
    contrast = target_square.to(delta).sqrt() / (retain.sqrt() + _FLOOR * retain.mean().sqrt()).clamp_min(1e-30)
    worst = (delta.abs() * contrast).argsort(dim=1, descending=True, stable=True)[:, :n_removed]
    return delta.scatter(1, worst, torch.zeros_like(delta[:, :1]).expand(-1, n_removed))
