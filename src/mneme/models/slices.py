"""Large tensors a few megabytes at a time: what is computed of a vocabulary's matrix must not cost the memory of another."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

_ELEMENTS = 1 << 22
"""Elements of a slice: 16 MB in float32, and with it what is made of them. A round number that was never varied."""


def flat_slices(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The elements of tensors of one shape in order, some 4 M of each at a time, flat; views of contiguous tensors."""
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    for start in range(0, flat[0].numel(), _ELEMENTS):
        yield tuple(one[start : start + _ELEMENTS] for one in flat)


def blocks_along(tensor: Tensor, axis: int) -> Iterator[Tensor]:
    """Views of some 4 M elements, cut along `axis`."""
    step = max(1, _ELEMENTS // max(1, tensor.numel() // max(1, tensor.shape[axis])))
    yield from torch.split(tensor.detach(), step, dim=axis)


def frobenius(tensor: Tensor) -> float:
    """Root of the sum of squares, summed in float64."""
    return math.sqrt(math.fsum(float(part.double().square().sum()) for (part,) in flat_slices(tensor)))
