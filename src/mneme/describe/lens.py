"""Logit lens of a direction (Nostalgebraist 2020): which tokens does it push up or down when the head reads it directly.

The final norm's scale depends on the whole residual stream; its gain does not, so the direction is multiplied by the gain
and read by the unembedding. Only the order of tokens is used, not the size of the logits.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mneme.errors import UnsupportedArchitecture
from mneme.models.architecture import Parts

_LIMIT = 6
"""Tokens in either direction: one line of the page. A round number that was never varied."""


def promoted_tokens(parts: Parts, direction: Float[Tensor, " d_model"], *, limit: int = _LIMIT) -> tuple[list[int], list[int]]:
    """Token ids that `direction` (raw units of the residual stream) raises most and lowers most, strongest first."""
    with torch.no_grad():
        gain = getattr(parts.norm, "weight", None)
        read = direction * gain.to(direction.dtype) if isinstance(gain, Tensor) else direction
        weight = parts.head.weight
        if not isinstance(weight, Tensor):
            raise UnsupportedArchitecture("The head has no weight matrix to read directions by: expected a linear head.")
        scores = weight.to(direction.dtype) @ read.to(weight.device)
        up = torch.topk(scores, min(limit, len(scores))).indices.tolist()
        down = torch.topk(-scores, min(limit, len(scores))).indices.tolist()
    return up, down
