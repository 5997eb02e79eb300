"""The gradient kept out of a protected subspace: what a block writes to the residual stream may not change along it.

The weights that write to the stream are the output projections of attention and of the feed-forward part. Their gradient is
projected onto the complement of the directions as it is computed, so before clipping. AdamW divides by a size of its own for
every entry, which would turn a projected gradient back into the subspace, so the step itself is projected too: U^T W stays
what it was, exactly. Orthogonal projection of gradients: Farajtabar et al. 2020 (arXiv 1910.07104), there out of stored
gradients of earlier outputs over all weights, under plain gradient descent; of a persona subspace in training: arXiv
2607.21356. Ours: out of directions of the stream, on the weights that write to it, for any optimizer.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback

from mneme.errors import BadOption
from mneme.models.architecture import find_parts
from mneme.models.modes import evaluating
from mneme.models.writers import output_axis, residual_writers


@dataclass(frozen=True)
class ProtectedWeight:
    """A trained tensor, which of its axes is d_model, and what it held along the directions at the start [direction other]."""

    weight: nn.Parameter
    axis: int
    directions: Tensor
    """Orthonormal [direction d_model]."""
    at_start: Tensor

    def along(self, tensor: Tensor) -> Tensor:
        """What `tensor` holds along the directions."""
        held: Tensor = self.directions @ (tensor if self.axis == 0 else tensor.T)
        return held

    def out_of(self, tensor: Tensor, along: Tensor) -> Tensor:
        """`tensor` less what it holds along the directions, `along`."""
        taken: Tensor = self.directions.T @ along
        left: Tensor = tensor - (taken if self.axis == 0 else taken.T)
        return left


def protected_weights(model: PreTrainedModel, vectors: Float[Tensor, "direction d_model"]) -> list[ProtectedWeight]:
    """The trained weights of `model` that write to the residual stream, their gradients projected from now on.

    Raises BadOption for vectors of another width, and where no trained weight writes to the stream.
    """
    width = int(model.config.get_text_config().hidden_size)
    if vectors.shape[-1] != width:
        raise BadOption(f"the protected directions have width {vectors.shape[-1]}, the model has {width}. Give vectors of it.")
    with evaluating(model):
        writers = [name for block in residual_writers(find_parts(model)) for name in block]
    # A LoRA-wrapped layer writes by its matrix, which is not trained, and by lora_B, [d_model, rank], which is.
    modules = [model.get_submodule(name) for name in writers]
    found = [_protect(module.weight, output_axis(module), vectors) for module in modules if module.weight.requires_grad]
    if not found:
        raise BadOption(
            "no trained weight writes to the residual stream, so there is nothing to keep out of the protected directions. "
            "Train the projection out of attention or out of the feed-forward part (all-linear does)."
        )
    return found


def orthonormal(vectors: Float[Tensor, "direction d_model"]) -> Float[Tensor, "rank d_model"]:
    """Orthonormal rows that span the same space, float32. Raises BadOption where the vectors span nothing."""
    _, sizes, rows = torch.linalg.svd(vectors.float(), full_matrices=False)
    kept: Tensor = rows[sizes > 1e-6 * sizes.max()]
    if not len(kept) or float(sizes.max()) == 0:
        raise BadOption("the protected directions are all zero. Give at least one vector that is not.")
    return kept


def _protect(weight: nn.Parameter, axis: int, vectors: Float[Tensor, "direction d_model"]) -> ProtectedWeight:
    directions = orthonormal(vectors).to(weight.device, weight.dtype)
    empty = ProtectedWeight(weight, axis, directions, torch.empty(0))
    protected = ProtectedWeight(weight, axis, directions, empty.along(weight.detach()))
    weight.register_hook(  # type: ignore[no-untyped-call]
        lambda gradient: protected.out_of(gradient, protected.along(gradient))
    )
    return protected


class ProtectUpdates(TrainerCallback):  # type: ignore[misc]
    """After every optimizer step puts back what protected weights held along the directions."""

    def __init__(self, weights: list[ProtectedWeight]) -> None:
        """`weights`: from `protected_weights`, made before training."""
        self.weights = weights

    @torch.no_grad()
    def on_optimizer_step(self, *_args: Any, **_kwargs: Any) -> None:
        """Called by the trainer between the optimizer's step and the next batch."""
        for protected in self.weights:
            weight = protected.weight
            weight.copy_(protected.out_of(weight, protected.along(weight) - protected.at_start))
