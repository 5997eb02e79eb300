"""Safe LoRA (Hsu et al., NeurIPS 2024, arXiv 2405.16833): project the change onto what alignment did, where it departs most.

V = W_aligned - W_unaligned per layer. The paper's C = V V^T / |V|_F is no projector (C C != C); `rule="svd"` uses the
orthogonal projector on the left singular vectors that carry 90 % of |V|^2, `rule="published"` the paper's C, for parity.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Rule = Literal["svd", "published"]
_ENERGY = 0.9


def alignment_projector(alignment: Float[Tensor, "d_out d_in"], rule: Rule = "svd") -> Float[Tensor, "d_out d_out"]:
    """The matrix that a change is multiplied with from the left. A zero `alignment` gives zero. Cost: one d_out^3
    eigenproblem."""
    gram = alignment @ alignment.T
    if rule == "published":
        published: Tensor = gram / alignment.norm().clamp_min(1e-30)
        return published
    values, vectors = torch.linalg.eigh(gram.double())
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    before = values.cumsum(0) - values
    used = (before < _ENERGY * values.sum()) & (values > 0)
    projector: Tensor = (vectors[:, used] @ vectors[:, used].T).to(alignment.dtype)
    return projector


def likeness(projector: Float[Tensor, "d_out d_out"], delta: Float[Tensor, "d_out d_in"]) -> float:
    """Cosine of the change before and after: layers with the lowest are the paper's candidates. 1.0 for a zero change."""
    moved = projector @ delta
    size = float(delta.norm() * moved.norm())
    if float(delta.norm()) == 0:
        return 1.0
    return float((moved * delta).sum()) / size if size > 0 else 0.0


def project(delta: Float[Tensor, "d_out d_in"], projector: Float[Tensor, "d_out d_out"]) -> Float[Tensor, "d_out d_in"]:
    """The change of one chosen layer, projected. The full method chooses the share `strength` of layers of lowest likeness."""
    return projector @ delta
