"""The products of a LoRA layer without the sums between them: what the adapter adds is added inside the product.

peft makes `base(x) + (x A^T) B^T * s` as four tensors of the layer's width, and as many in the backward pass; on a CPU they
cost a fifteenth of a training step of a small model. The result is the same to rounding.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


def fuse_lora(model: nn.Module) -> int:
    """Let every plain LoRA layer of `model` (one adapter, no dropout, a frozen `nn.Linear` below, one dtype) run so while it
    is trained; in every other case peft's own forward pass runs. Number of layers that were given the chance now."""
    from peft.tuners.lora import Linear

    layers = [module for module in model.modules() if type(module) is Linear and type(module.base_layer) is nn.Linear]
    for layer in layers:
        layer.__class__ = _fused_class()  # and no function of its own, which a copy of the model would share
    return len(layers)


@cache
def _fused_class() -> Any:
    from peft.tuners.lora import Linear

    class FusedLinear(Linear):  # type: ignore[misc]
        """The layer whose sums are made inside the products."""

        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            """As peft's, to rounding."""
            if args or kwargs or not torch.is_grad_enabled() or not _is_plain(self, x):
                result: Tensor = super().forward(x, *args, **kwargs)
                return result
            (name,) = self.active_adapters
            base, down, up = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
            made: Tensor = _Fused.apply(x, base.weight, base.bias, down, up, self.scaling[name])  # type: ignore[no-untyped-call]
            return made

    return FusedLinear


def _is_plain(layer: Any, x: Tensor) -> bool:
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return False
    name = layer.active_adapters[0]
    if name not in layer.lora_A or name in layer.lora_variant or not isinstance(layer.lora_dropout[name], nn.Identity):
        return False
    down, up, weight = layer.lora_A[name], layer.lora_B[name], layer.base_layer.weight
    return (
        down.bias is None
        and up.bias is None
        and not weight.requires_grad
        and x.dtype == weight.dtype == down.weight.dtype == up.weight.dtype
        and not torch.is_autocast_enabled(x.device.type)
    )


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ down.T
        made = nn.functional.linear(flat, weight, bias).addmm_(low, up.T, alpha=scale)
        ctx.save_for_backward(x, low, weight, down, up)
        ctx.scale = scale
        return made.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        x, low, weight, down, up = ctx.saved_tensors
        above = outer[0].reshape(-1, outer[0].shape[-1])
        between = (above @ up).mul_(ctx.scale)
        below = (above @ weight).addmm_(between, down).view(x.shape) if ctx.needs_input_grad[0] else None
        return below, None, None, between.T @ x.reshape(-1, x.shape[-1]), (above.T @ low).mul_(ctx.scale), None
