"""Task arithmetic: add a safety vector to the change (RESTA, Bhardwaj et al. 2024, arXiv 2402.11746; Ilharco et al. 2023).

D = DARE(dW) + strength (W_aligned - W_unaligned). DARE (Yu et al. 2024, arXiv 2311.03099) drops entries of the change at
random and rescales the rest by 1 / (1 - p), which keeps its expectation. Strength 1 adds the whole vector; it is not the
base model.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mneme.errors import BadOption
from mneme.repair.strength import check_strength


def arithmetic(delta: Float[Tensor, "*shape"], safety: Float[Tensor, "*shape"], strength: float) -> Float[Tensor, "*shape"]:
    """delta + strength * safety; strength 0 is `delta`."""
    return delta + check_strength(strength) * safety


def dare(delta: Float[Tensor, "*shape"], drop_rate: float, *, seed: int) -> Float[Tensor, "*shape"]:
    """Each entry dropped with probability `drop_rate`, the others divided by 1 - drop_rate. Rate 0 is `delta`."""
    if not 0.0 <= drop_rate < 1.0:
        raise BadOption(f"A drop rate of {drop_rate:g} leaves nothing to rescale: expected 0 or more and less than 1.")
    kept = torch.rand(delta.shape, generator=torch.Generator().manual_seed(seed)).to(delta.device) >= drop_rate
    return torch.where(kept, delta / (1.0 - drop_rate), torch.zeros_like(delta))
