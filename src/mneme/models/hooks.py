"""Read, stop, add to and replace the residual stream of a model: context managers that always clean up.

A layer number is the block after which the stream is taken, 0-based: `layer` here is `hidden_states[layer + 1]` of
transformers (except the last, which transformers gives after the final norm and mneme before it).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mneme.errors import BadOption
from mneme.models.architecture import Parts, block_output


class _Stopped(Exception):
    """Raised inside a forward pass by `stop_after`, and caught by it."""


@contextmanager
def read(parts: Parts, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Collect the residual stream after each of `layers` while a model runs: {layer: [batch seq d_model]}.

    The dictionary is filled anew by every forward pass inside the `with`; tensors are the model's own (its dtype, no copy).
    Raises BadOption for a layer that the model does not have.
    """
    found: dict[int, Tensor] = {}
    check_layers(parts, layers)

    def keep(layer: int) -> Callable[[object, object, object], None]:
        def hook(_module: object, _args: object, output: object) -> None:
            found[layer] = block_output(output)

        return hook

    handles = [parts.blocks[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def stop_after(parts: Parts, layer: int) -> Iterator[None]:
    """End the forward pass of this `with` as soon as block `layer` and its hooks are done; nothing read before changes.

    The call of the model does not return: statements after it inside the same `with` do not run, those after the `with`
    do. After the last block it ends before the final norm, so no logits are ever made.
    """
    check_layers(parts, [layer])
    following = parts.blocks[layer + 1] if layer + 1 < len(parts.blocks) else parts.norm
    done: list[bool] = []

    def note(*_: object) -> None:
        done.append(True)

    def stop(_module: object, _args: object) -> None:
        if done:  # the norm at the end may stand at the beginning too (NanoChat)
            raise _Stopped

    handles = [parts.blocks[layer].register_forward_hook(note), following.register_forward_pre_hook(stop)]
    try:
        yield
    except _Stopped:
        pass
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replace(parts: Parts, layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let the model go on with `change(h)` [batch seq d_model] in place of the residual stream `h` after block `layer`."""
    check_layers(parts, [layer])

    def hook(_module: object, _args: object, output: object) -> object:
        changed = change(block_output(output))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = parts.blocks[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def going_on(parts: Parts, layer: int, hidden: Float[Tensor, "batch seq d_model"], *, skip: bool) -> Iterator[None]:
    """Let the model go on with `hidden` after block `layer`. `skip`: without running what stands before: of those blocks only
    the first runs, and shows in what form they return. Only for models that `can_go_on`."""
    check_layers(parts, [layer])
    form: list[object] = []
    kept = [(block, block.__dict__.get("forward")) for block in parts.blocks[1 : layer + 1]] if skip else []

    def keep(_module: object, _args: object, output: object) -> None:
        form[:] = [output]

    def pass_on(*_args: object, **_options: object) -> object:
        return form[0]

    handle = parts.blocks[0].register_forward_hook(keep)
    for block, _ in kept:
        block.forward = pass_on
    try:
        with replace(parts, layer, lambda own: hidden.to(own.device)):
            yield
    finally:
        handle.remove()
        for block, own in kept:
            del block.forward
            if own is not None:
                block.forward = own


@torch.no_grad()
def can_go_on(parts: Parts, ids: Int[Tensor, "batch seq"]) -> bool:
    """Whether the blocks behind the middle say the same when those before are passed over: tried out. Models whose later
    blocks read what earlier ones left elsewhere than in the residual stream cannot."""
    last = len(parts.blocks) - 1
    middle = last // 2
    whole = read_residuals(parts, ids, [middle, last])
    try:
        with going_on(parts, middle, whole[middle], skip=True):
            part = read_residuals(parts, ids, [last])
    except (RuntimeError, TypeError, KeyError, IndexError, AttributeError):
        return False
    return torch.equal(whole[last], part[last])


@contextmanager
def add(parts: Parts, layer: int, vector: Float[Tensor, "*token d_model"]) -> Iterator[None]:
    """Add `vector` [d_model], or one vector a token [batch seq d_model], to the residual stream after block `layer`."""
    with replace(parts, layer, lambda hidden: hidden + vector.to(hidden)):
        yield


def read_residuals(
    parts: Parts, ids: Int[Tensor, "batch seq"], layers: Sequence[int]
) -> dict[int, Float[Tensor, "batch seq d_model"]]:
    """The residual streams of one batch without padding: no logits, no cache, no gradient, stopped after the deepest layer."""
    with torch.no_grad(), read(parts, layers) as found, stop_after(parts, max(layers)):
        parts.decoder(input_ids=ids.to(parts.device), use_cache=False)
    return found


@contextmanager
def in_float32(parts: Parts) -> Iterator[None]:
    """Let a model of narrower weights compute in float32: every block has its weights widened while it runs, and gets its own
    back afterwards. Memory: one block in float32."""
    kept: list[tuple[nn.Parameter, Tensor]] = []

    def widen(module: nn.Module, _args: object) -> None:
        for weight in module.parameters():
            if weight.dtype != torch.float32:
                kept.append((weight, weight.data))
                weight.data = weight.data.float()

    def narrow(*_: object) -> None:
        while kept:
            weight, own = kept.pop()
            weight.data = own

    units = [parts.embedding, *parts.blocks, parts.norm, parts.head]
    handles = [unit.register_forward_pre_hook(widen) for unit in units]
    handles += [unit.register_forward_hook(narrow) for unit in units]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        narrow()


def check_layers(parts: Parts, layers: Sequence[int]) -> None:
    """Raise BadOption unless every layer exists."""
    unknown = [layer for layer in layers if not 0 <= layer < len(parts.blocks)]
    if unknown:
        raise BadOption(
            f"layer {unknown[0]} does not exist: this model has {len(parts.blocks)} blocks. "
            f"Give layers from 0 to {len(parts.blocks) - 1}."
        )
