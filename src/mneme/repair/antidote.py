"""Antidote as published (Huang et al., ICML 2025, arXiv 2408.09600): one-shot pruning of what harmful text uses most.

Score S_ij = |W_ij| sqrt(a_j) with a_j the mean squared input of channel j on harmful text (Wanda, Sun et al. 2024, arXiv
2306.11695); in every output row the int(alpha d_in) largest are set to zero. An adapter is scored factor by factor: lora_A on
the layer's input, lora_B on what lora_A makes of it. Without an adapter the *whole* weight of q, k and v is pruned, not its
change, so that alpha = 1 is no base model there. The paper's layer order, its unused OWL part and its dead safety mask do not
change the mask. Kept for parity; `wanda_delta` is the same idea on the change itself.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mneme.repair.strength import check_strength


def antidote(
    weight: Float[Tensor, "d_out d_in"], mean_square: Float[Tensor, " d_in"], strength: float
) -> Float[Tensor, "d_out d_in"]:
    """`weight` with the int(strength * d_in) highest scores of every output row set to zero (the paper's alpha = `strength`).

    `mean_square`: of the inputs of this matrix on harmful text, per channel, raw units. Of equal scores the first go.
    """
    n_pruned = int(check_strength(strength) * weight.shape[1])
    score = weight.abs() * mean_square.to(weight).sqrt()
    worst = score.argsort(dim=1, descending=True, stable=True)[:, :n_pruned]
    return weight.scatter(1, worst, torch.zeros_like(weight[:, :1]).expand(-1, n_pruned))
