"""Change latents folded away: the writers of the residual stream stop writing the change along chosen directions. Ours.

A latent of the audit's change dictionary is a direction d (d_tuned - d_base) of the residual stream after a block. The
matrices that write into that stream up to there (attention output, MLP output) get D = (I - s P) dW, P the projector on the
chosen directions. Exact: what the changed part of these matrices writes along the directions, at every token. Not exact: (1)
the latent fires at some tokens only, the fold acts at all; (2) change that reaches the stream through changed inputs of an
unchanged writer stays; (3) blocks after the layer see a changed stream and are left as tuned.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mneme.repair.strength import check_strength


def ablate(
    delta: Float[Tensor, "d_model d_in"], directions: Float[Tensor, "latent d_model"], strength: float
) -> Float[Tensor, "d_model d_in"]:
    """(I - strength P) delta, with P the orthogonal projector on the span of `directions` (need not be orthogonal or unit).

    Strength 0 is `delta`; 1 leaves the change of this writer orthogonal to every direction. Directions of zero are ignored.
    """
    basis = torch.linalg.svd(directions.to(delta), full_matrices=False)
    kept = basis.Vh[basis.S.gt(1e-6 * basis.S.max().clamp_min(1e-30))]
    along: Tensor = kept.T @ (kept @ delta)
    return delta - check_strength(strength) * along
