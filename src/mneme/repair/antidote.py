"""Antidote (Huang et al., ICML 2025, arXiv 2408.09600): one-shot pruning of what harmful text uses most.

Score S_ij = |W_ij| sqrt(a_j) with a_j the mean squared input of channel j on harmful text (Wanda, Sun et al. 2024, arXiv
2306.11695); in every output row the int(d_in (1 - alpha)) smallest are kept and the rest is set to zero, entry for entry as
the authors' code does (git-disl/Antidote 26e2ade; tests/parity): at any alpha above 0 every row loses at least one entry. An
adapter is scored factor by factor: lora_A on the layer's input, lora_B on what lora_A makes of it. Without an adapter the
*whole* weight of q, k and v is pruned, not its change, so that alpha = 1 is no base model there. The code's layer order, its
commented OWL part and its dead safety mask do not change the mask. What differs: padding never counts (the authors run texts
one at a time). Kept for parity; `wanda_delta` is the same idea on the change itself.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mneme.repair.strength import check_strength


def antidote(
    weight: Float[Tensor, "d_out d_in"], mean_square: Float[Tensor, " d_in"], strength: float
) -> Float[Tensor, "d_out d_in"]:
    """`weight` with all but the int(d_in * (1 - strength)) lowest scores of every output row set to zero; the paper's alpha is
    `strength`, computed in double precision as there.

    `mean_square`: of the inputs of this matrix on harmful text, per channel, raw units. Of equal scores the first are kept.
    """
    n_kept = int(weight.shape[1] * (1 - check_strength(strength)))
    score = weight.abs() * mean_square.to(weight).sqrt()
    worst = score.argsort(dim=1, stable=True)[:, n_kept:]
    return weight.scatter(1, worst, torch.zeros_like(weight[:, :1]).expand(-1, worst.shape[1]))
