"""Activation safeguards: a `with` block in which a vector is added to the residual stream.

Preventive steering (Chen et al. 2025, "Persona Vectors", arXiv 2507.21509): add a trait's vector in training only, so that the
weights need not learn to produce it; without the vector the model is used as ever. At inference the same vector, subtracted,
suppresses the trait. Chen et al. add alpha v at one layer and all positions (alpha 5), or increments v_l - v_(l-1) at all
layers with smaller alpha. At all layers the first increment is v_0 whole, the share of the embedding included; with a file of
the authors, which has the embedding as a row of its own, that share is left out. Unit of strength: multiples of the vector as
it was extracted (not of unit length).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from jaxtyping import Float
from torch import Tensor

from mneme.errors import BadOption
from mneme.models.architecture import Parts
from mneme.models.hooks import replace


@contextmanager
def steer(
    parts: Parts,
    vectors: Float[Tensor, "layer d_model"],
    *,
    strength: float,
    layer: int | None = None,
    training_only: bool = True,
) -> Iterator[None]:
    """Add `strength` x the vector of `layer` to the residual stream after it, everywhere; None: increments at every layer.

    With `training_only` nothing is added while the model is in eval mode, so references, probes and evaluation see the model
    as it will be used. `vectors` has a row for every block, `vectors[l]` for the stream after block l. Negative strength
    suppresses. Raises BadOption for vectors that do not fit, or a layer that does not exist.
    """
    check_fit(parts, vectors)
    increments = vectors.clone()
    increments[1:] -= vectors[:-1]
    chosen = {layer: vectors[layer]} if layer is not None and 0 <= layer < len(vectors) else None
    if layer is not None and chosen is None:
        raise BadOption(f"layer {layer} does not exist: the vectors have rows 0 to {len(vectors) - 1}.")
    with ExitStack() as stack:
        for at, vector in (chosen or dict(enumerate(increments))).items():
            stack.enter_context(_adding(parts, at, strength * vector, training_only))
        yield


def check_fit(parts: Parts, vectors: Float[Tensor, "layer d_model"]) -> None:
    """Raise BadOption unless there is one vector of the model's width for every block."""
    if tuple(vectors.shape) != (len(parts.blocks), parts.width):
        raise BadOption(
            f"the vectors have shape {tuple(vectors.shape)}, and the model has {len(parts.blocks)} blocks of width "
            f"{parts.width}. Give vectors that were extracted from this model."
        )


@contextmanager
def _adding(parts: Parts, layer: int, vector: Float[Tensor, " d_model"], training_only: bool) -> Iterator[None]:
    block = parts.blocks[layer]

    def change(hidden: Tensor) -> Tensor:
        return hidden if training_only and not block.training else hidden + vector.to(hidden)

    with replace(parts, layer, change):
        yield
