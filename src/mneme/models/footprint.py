"""What a training will take, from a small piece of it: seconds and bytes a token, and what memory there is."""

import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mneme.models.architecture import Parts
from mneme.models.batching import padded
from mneme.models.likelihood import counted_log_probs
from mneme.text.encoded import Encoded

_PROBE_TEXTS, _PROBE_TOKENS = 8, 256
"""So many texts at most are timed, and tokens, if one text is no longer: enough to be busy with products."""


class Footprint(NamedTuple):
    """Of one token."""

    forward_seconds: float
    """Without a gradient."""
    step_seconds: float
    """Forward and backward."""
    saved_bytes: float
    """What autograd keeps from the forward to the backward pass: the activations."""


def footprint(loss: Callable[[], Tensor], tokens: int, weights: Iterable[Tensor]) -> Footprint:
    """Of `loss`, which runs `tokens` tokens through a model with these weights: once to warm up without a gradient, once timed
    so, and once forward and backward. No gradient is left behind, and nobody else's random numbers are touched."""
    kept = list(weights)
    with torch.random.fork_rng(devices=[]):
        with torch.no_grad():
            for _ in range(2):
                started = time.perf_counter()
                loss().item()
                forward = time.perf_counter() - started
        started = time.perf_counter()
        found, size = saved_bytes(loss, kept)
        torch.autograd.backward(found)
        step = time.perf_counter() - started
    for weight in kept:
        weight.grad = None
    return Footprint(forward / tokens, step / tokens, size / tokens)


def likelihood_footprint(parts: Parts, texts: Sequence[Encoded], trained: Iterable[Tensor] | None = None) -> Footprint:
    """Of the ordinary loss on the first few of `texts`, with a gradient in the weights `trained`; None: as the model is."""
    chosen = list(texts[:_PROBE_TEXTS])
    while len(chosen) > 1 and sum(len(text.ids) for text in chosen) > _PROBE_TOKENS:
        chosen.pop()
    batch = padded(chosen)
    required = {weight: weight.requires_grad for weight in parts.model.parameters()}
    if trained is not None:
        parts.model.requires_grad_(False)
        for weight in trained:
            weight.requires_grad_(True)
    try:
        return footprint(lambda: -counted_log_probs(parts, batch).mean(), batch.ids.numel(), required)
    finally:
        for weight, on in required.items():
            weight.requires_grad_(on)


def saved_bytes(loss: Callable[[], Tensor], weights: Iterable[Tensor]) -> tuple[Tensor, int]:
    """(what `loss` gives, bytes that autograd keeps for its backward pass: every storage once, those of `weights` never)."""
    own = {weight.untyped_storage().data_ptr() for weight in weights}
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = loss()
    return found, sum(seen.values())


def resident_bytes() -> int:
    """Memory of this process now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * 4096


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def free_bytes() -> int | None:
    """Memory that this process may still take, on Linux: of the machine, or of its control group where that is less; None
    elsewhere."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        found.append(int(limit) - int(used))
    except (OSError, ValueError):  # no such group, or "max": no limit
        pass
    return min(found)
