"""A GPU that is not there: tensors that say they are on `cuda:0`, compute on the CPU, and refuse what a real GPU refuses.

For machines without one: code that would mix devices, read a GPU's memory through numpy or leave a result on the wrong side
fails here as it would there. Says nothing about speed, kernels or rounding.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mneme.models.architecture import Parts, find_parts
from mneme.models.pair import ModelPair

GPU = torch.device("cuda", 0)
_MOVES = {"to", "cpu", "cuda", "copy_", "type_as", "as_subclass"}


class OnGpu(Tensor):
    """Data on the CPU under a flag."""


def _flat(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))


def _there(tensor: Tensor) -> bool:
    return isinstance(tensor, OnGpu) or ("on_gpu" in vars(tensor) and vars(tensor)["on_gpu"])


def _flagged(value: Any, gpu: bool) -> Any:
    """`value` with every tensor in it on the GPU, or off it."""
    if isinstance(value, Tensor):
        with torch._C.DisableTorchFunction():
            if value.layout != torch.strided:
                value.on_gpu = gpu  # type: ignore[attr-defined]
                return value
            return value.as_subclass(OnGpu if gpu else Tensor)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_flagged(one, gpu) for one in value))
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, list | tuple):
        found = [_flagged(one, gpu) for one in value]
        return found if isinstance(value, list) else type(value)(found) if type(value) is not tuple else tuple(found)
    return value


class PretendGpu(TorchFunctionMode):
    """While it is active `cuda` exists. `moved` counts the functions that ran on it."""

    ran = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """One call of a torch function, checked as a GPU would check it."""
        kwargs = dict(kwargs or {})
        tensors = list(_flat((args, kwargs)))
        here = any(_there(tensor) for tensor in tensors)
        name = getattr(func, "__name__", "")
        owner = getattr(func, "__self__", None)
        if owner is Tensor.device:  # type: ignore[comparison-overlap]
            return GPU if here else torch.device("cpu")
        if owner is Tensor.is_cuda:  # type: ignore[comparison-overlap]
            return here
        if here and name in ("numpy", "__array__"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        target = _target(name, args, kwargs)
        if target is None:
            _check(name, args, tensors)
        gpu = here if target is None else target
        self.ran += gpu
        plain_args = tuple("cpu" if _names_gpu(a) else a for a in args)
        plain_kwargs = {key: "cpu" if _names_gpu(value) else value for key, value in kwargs.items()}
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*plain_args, **plain_kwargs)
        if name.endswith("_") and not name.endswith("__") and isinstance(result, Tensor) and tensors:
            return tensors[0]
        return _flagged(result, gpu)


def _names_gpu(value: Any) -> bool:
    return (isinstance(value, str) and value.startswith("cuda")) or (isinstance(value, torch.device) and value.type == "cuda")


def _target(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool | None:
    """Whether a call asks for a result on the GPU (True) or on the CPU (False); None: it does not say."""
    if name == "copy_":
        return isinstance(args[0], OnGpu)
    if name == "cpu":
        return False
    if kwargs.get("device") is not None:
        return _names_gpu(kwargs["device"])
    if name in _MOVES:
        for asked in args[1:]:
            if isinstance(asked, Tensor):
                return isinstance(asked, OnGpu)
            if isinstance(asked, torch.device | str):
                return _names_gpu(asked)
    return None


def _check(name: str, args: tuple[Any, ...], tensors: list[Tensor]) -> None:
    """Raise as a GPU does where tensors of both sides meet."""
    with torch._C.DisableTorchFunction():
        sized = [tensor for tensor in tensors if tensor.dim() > 0 and tensor.layout == torch.strided]
    if name == "__getitem__" or (name == "__setitem__" and not any(True for _ in _flat(args[1]))):
        first = isinstance(args[0], OnGpu)
        if not first and any(isinstance(tensor, OnGpu) for tensor in _flat(args[1])):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        return
    if name == "__setitem__":
        sized = [args[0], *(value for value in _flat(args[2]) if value.dim() > 0)]
    if len({isinstance(tensor, OnGpu) for tensor in sized}) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got tensors on cuda:0 and cpu.")


def _move(model: nn.Module) -> None:
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(_flagged(weight.data, True), weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _flagged(buffer, True)


def on_gpu(pair: ModelPair) -> ModelPair:
    """The pair with both models moved to the pretended GPU; call it while `PretendGpu` is active."""
    found: list[Parts] = []
    for parts in (pair.base_parts, pair.tuned_parts):
        _move(parts.model)
        found.append(find_parts(parts.model))
    return replace(pair, base_parts=found[0], tuned_parts=found[1])
