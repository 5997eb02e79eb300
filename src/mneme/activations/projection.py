"""Where text lies along a direction of the residual stream: masked means of activations, and their projection.

Layer l is the residual stream after block l, 0-based (`hidden_states[l + 1]` of transformers; published persona-vector files
count from 1, so that their row 20 is layer 19 here). Raw units: those of the residual stream.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mneme.errors import BadOption, EmptyMask
from mneme.models.architecture import Parts
from mneme.models.batching import batches
from mneme.models.hooks import read, stop_after
from mneme.text.encoded import Encoded


def projection(hidden: Float[Tensor, "*token d_model"], vector: Float[Tensor, " d_model"]) -> Float[Tensor, "*token"]:
    """Length of `hidden` along `vector`, in raw units: hidden . vector / |vector|, float32.

    Raises BadOption for a vector of length 0.
    """
    direction = vector.float()
    length = direction.norm()
    if not float(length) > 0:
        raise BadOption("a direction of length 0 has no projection. Give a vector that is not all zero.")
    along: Tensor = hidden.float() @ (direction / length).to(hidden.device)
    return along


@torch.no_grad()
def masked_means(
    parts: Parts, ids: Int[Tensor, "batch seq"], keep: Bool[Tensor, "batch seq"], layers: Sequence[int]
) -> Float[Tensor, "layer batch d_model"]:
    """Mean residual stream of each row over the tokens kept, at each of `layers`, float32, raw units.

    Padding has to be on the right and not kept: no kept token sees it then. Raises EmptyMask where a row keeps no token.
    """
    if not bool(keep.any(dim=1).all()):
        raise EmptyMask("a row has no token to average over: expected at least one kept token in every row.")
    with read(parts, layers) as found, stop_after(parts, max(layers)):
        parts.decoder(input_ids=ids.to(parts.device), use_cache=False)
    weights = keep.to(parts.device).float()
    weights = weights / weights.sum(dim=1, keepdim=True)
    return torch.stack([torch.einsum("bs,bsd->bd", weights, found[layer].float()) for layer in layers])


@torch.no_grad()
def answer_means(parts: Parts, texts: Sequence[Encoded], layers: Sequence[int]) -> Float[Tensor, "layer text d_model"]:
    """Mean residual stream over each text's counted tokens, float32, raw units."""
    found = torch.zeros(len(layers), len(texts), parts.width)
    for batch in batches(texts):
        found[:, list(batch.texts)] = masked_means(parts, batch.ids, batch.counted, layers).cpu()
    return found
