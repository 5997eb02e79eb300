"""Which linear maps write to the residual stream: found by structure, proven by a forward pass, never by name. Ours.

A map writes where its output reaches the stream after its block through no other linear map: what is added to the output comes
out of the block although every other map says what it said before. So the projection out of attention writes and those of
queries, keys and values do not; a norm behind the map (Gemma 2) or a factor does no harm. A LoRA-wrapped map is two maps that
write, its matrix and the outer factor. Fused experts are no linear maps and are not found.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mneme.models.architecture import Parts, block_output

_Call = tuple[tuple[Any, ...], dict[str, Any]]


@torch.no_grad()
def residual_writers(parts: Parts) -> tuple[tuple[str, ...], ...]:
    """For every block the names (in `parts.model`) of the linear maps that write to the stream, in the order of the pass.

    The model must be in eval mode. Cost: about five forward passes on 8 token ids.
    """
    names = {module: name for name, module in parts.model.named_modules()}
    return tuple(
        tuple(names[writer] for writer in _writers_of(block, call, parts.width))
        for block, call in zip(parts.blocks, _block_calls(parts), strict=True)
    )


def output_axis(writer: nn.Module) -> int:
    """The axis of a linear map's weight that is its output: GPT-2's Conv1D stores the transpose of what others do."""
    return 1 if isinstance(writer, Conv1D) else 0


def _block_calls(parts: Parts) -> list[_Call]:
    """What every block is called with in a pass over 8 token ids."""
    calls: list[_Call] = []

    def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((args, kwargs))

    handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in parts.blocks]
    try:
        ids = torch.arange(3, 11, device=parts.device) * 7 % int(parts.embedding.weight.shape[0])  # type: ignore[index]
        parts.decoder(input_ids=ids[None], use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _writers_of(block: nn.Module, call: _Call, width: int) -> list[nn.Module]:
    said: dict[nn.Module, list[Tensor]] = {}

    def listen(module: nn.Module, _args: object, output: Tensor) -> None:
        said.setdefault(module, []).append(output)

    _run(block, call, dict.fromkeys(_linear_maps(block), listen))
    usual = _replayed(block, call, said, None)
    # On a CPU exactly 0; some sums on a GPU come out a little different each time.
    noise = float((_replayed(block, call, said, None) - usual).abs().max())
    return [
        module
        for module, outputs in said.items()
        if outputs[0].shape[-1] == width and float((_replayed(block, call, said, module) - usual).abs().max()) > 4 * noise
    ]


def _linear_maps(block: nn.Module) -> list[nn.Module]:
    return [module for module in block.modules() if isinstance(module, nn.Linear | Conv1D)]


def _replayed(
    block: nn.Module, call: _Call, said: dict[nn.Module, list[Tensor]], changed: nn.Module | None
) -> Float[Tensor, "batch seq d_model"]:
    """The stream after the block where every linear map says what it said before, but `changed` something else."""

    def replay(module: nn.Module) -> Callable[[nn.Module, object, Tensor], Tensor]:
        outputs = iter(said[module])

        def hook(_module: nn.Module, _args: object, _output: Tensor) -> Tensor:
            before = next(outputs)
            if module is not changed:
                return before
            # No constant and no multiple of what was there: a norm behind the map would undo either.
            slope = torch.linspace(-1, 1, before.shape[-1], device=before.device).square().to(before.dtype)
            return before + slope * (before.abs().max() + 1)

        return hook

    return _run(block, call, {module: replay(module) for module in said})


def _run(
    block: nn.Module, call: _Call, hooks: dict[nn.Module, Callable[..., Tensor | None]]
) -> Float[Tensor, "batch seq d_model"]:
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        return block_output(block(*call[0], **call[1])).float()
    finally:
        for handle in handles:
            handle.remove()
