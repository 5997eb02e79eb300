"""Logits where they are asked for, and nowhere else: a model's own norm and head on single residual vectors."""

import torch
from jaxtyping import Float
from torch import Tensor

from mneme.models.hooks import in_float32
from mneme.models.pair import ModelPair, Side

_LOGITS = 1 << 24
"""Logits of one model at once: 64 MB in float32. Never varied."""


def rows_at_once(pair: ModelPair) -> int:
    """At how many places logits are made together: 64 MB of them."""
    return max(1, _LOGITS // pair.vocab_size)


def head_logits(pair: ModelPair, side: Side, states: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
    """What the model's own norm and head say of residual vectors after the last block: its logits, in float32 whatever its
    precision."""
    with torch.no_grad(), pair.using(side, exact=True) as parts, torch.autocast(states.device.type, enabled=False):
        with in_float32(parts):
            logits: Tensor = parts.head(parts.norm(states.float())) * parts.logit_scale
        if parts.logit_softcap is not None:
            logits = parts.logit_softcap * torch.tanh(logits / parts.logit_softcap)
    return logits.float()
