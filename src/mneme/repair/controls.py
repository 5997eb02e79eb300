"""Two controls that every method has to beat: the whole change made smaller, and entries of it removed at random.

Random perturbation alone restores a good part of safety (Panacea, Wang et al. 2025), so a method that is no better than the
random mask has found nothing. Matched by energy, not by count: |dW|^2 removed is what a masking method spends.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mneme.repair.strength import check_strength


def scale(delta: Float[Tensor, "*shape"], strength: float) -> Float[Tensor, "*shape"]:
    """(1 - strength) * delta. Strength 0 is the tuned model, 1 the base. Cost: one product.

    Weight interpolation as in WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903), one factor for all layers.
    """
    return delta * (1.0 - check_strength(strength))


def random_mask(delta: Float[Tensor, "d_out d_in"], strength: float, *, seed: int) -> Float[Tensor, "d_out d_in"]:
    """Zero entries of `delta` in a random order until at least `strength` of |delta|^2 is removed.

    Strength 0 removes nothing, 1 everything. The same seed removes supersets as the strength grows. Cost: one sort-free pass.
    """
    if check_strength(strength) == 1.0:
        return torch.zeros_like(delta)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(delta.numel(), generator=generator).to(delta.device)
    energy = delta.flatten()[order].double().square().cumsum(0)
    kept = energy > strength * energy[-1]  # the first removed entry that passes the share is the last one removed
    removed = order[: int((~kept).sum()) + 1] if strength > 0 else order[:0]
    masked = delta.flatten().clone()
    masked[removed] = 0.0
    return masked.view_as(delta)
