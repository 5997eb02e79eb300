"""Streaming statistics of what goes into linear maps on a probe: second moments per channel, or the whole mean outer product.

Only positions that predict a counted token are summed, padding never, so that the result is the same for any batch size and
either side of padding (up to float32 rounding). No activation is stored: memory is the statistics and one batch.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mneme.errors import EmptyMask
from mneme.models.architecture import Parts
from mneme.models.batching import BATCH_TOKENS, PaddingSide, batches, padded, run_blocks
from mneme.text.probes import Probe

Counting = Literal["predicting", "real"]
"""Positions that count: those that predict a counted token, or every real token (as Antidote's authors do)."""


@torch.no_grad()
def mean_squares(
    parts: Parts,
    probe: Probe,
    layers: Mapping[str, nn.Linear],
    *,
    counting: Counting = "predicting",
    batch_tokens: int = BATCH_TOKENS,
    side: PaddingSide = "right",
) -> dict[str, Float[Tensor, " d_in"]]:
    """Mean of x_j^2 over the counted positions, for the inputs x of every layer. Raises EmptyMask where nothing counts."""
    totals = {name: torch.zeros(layer.in_features, device=layer.weight.device) for name, layer in layers.items()}

    def add(name: str, rows: Tensor) -> None:
        totals[name] += rows.square().sum(0)

    count = _stream(parts, probe, layers, add, counting, batch_tokens, side)
    return {name: total / count for name, total in totals.items()}


@torch.no_grad()
def input_grams(
    parts: Parts,
    probe: Probe,
    layers: Mapping[str, nn.Linear],
    *,
    batch_tokens: int = BATCH_TOKENS,
    side: PaddingSide = "right",
) -> dict[str, Float[Tensor, "d_in d_in"]]:
    """Mean of x x^T over the positions that predict a counted token. Layers that read one tensor (q, k, v) share one matrix.

    Raises EmptyMask where nothing counts. Memory: one d_in x d_in float32 matrix for every distinct input.
    """
    owner = _shared_inputs(parts, probe, layers)
    grams: dict[str, Tensor] = {}
    for name in sorted(set(owner.values())):
        width = layers[name].in_features
        grams[name] = torch.zeros(width, width, device=layers[name].weight.device)

    def add(name: str, rows: Tensor) -> None:
        grams[name].addmm_(rows.T, rows)

    firsts = {name: layers[name] for name in grams}
    count = _stream(parts, probe, firsts, add, "predicting", batch_tokens, side)
    for gram in grams.values():
        gram /= count
    return {name: grams[first] for name, first in owner.items()}


def gram_groups(layers: Mapping[str, nn.Linear], block: Mapping[str, int], memory_bytes: int) -> Iterator[list[str]]:
    """Layers by whole blocks, in order, so many blocks at a time as two Grams of each layer fit into `memory_bytes`; at
    least one block. Counts every layer as if it shared its input with no other."""
    group: list[str] = []
    used = 0
    for number in sorted({block[name] for name in layers}):
        own = [name for name in layers if block[name] == number]
        needed = sum(2 * 4 * layers[name].in_features ** 2 for name in own)
        if group and used + needed > memory_bytes:
            yield group
            group, used = [], 0
        group += own
        used += needed
    if group:
        yield group


@contextmanager
def _inputs(layers: Mapping[str, nn.Linear], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _module, args: see(name, args[0])

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _stream(
    parts: Parts,
    probe: Probe,
    layers: Mapping[str, nn.Linear],
    add: Callable[[str, Tensor], None],
    counting: Counting,
    batch_tokens: int,
    side: PaddingSide,
) -> int:
    """Run the probe; `add(name, rows)` gets the counted inputs of every layer, batch by batch. Returns how many count."""
    count = 0
    for batch in batches(probe.texts, batch_tokens=batch_tokens, side=side):
        keep = (batch.predicting() if counting == "predicting" else batch.real).to(parts.device)
        count += int(keep.sum())
        with _inputs(layers, lambda name, x, keep=keep: add(name, _rows(x, keep))):  # type: ignore[misc]
            run_blocks(parts, batch)
    if count == 0:
        raise EmptyMask(f"No token of the {probe.name} text counts. Expected texts with an answer, or plain text.")
    return count


def _rows(inputs: Float[Tensor, "batch seq d_in"], keep: Bool[Tensor, "batch seq"]) -> Float[Tensor, "token d_in"]:
    return inputs[keep.to(inputs.device)].float()


def _shared_inputs(parts: Parts, probe: Probe, layers: Mapping[str, nn.Linear]) -> dict[str, str]:
    """Layer -> the first layer that reads the very same tensor, seen on one short batch."""
    first: dict[int, tuple[str, Tensor]] = {}
    owner: dict[str, str] = {}

    def see(name: str, x: Tensor) -> None:
        # The tensor is kept too: a freed one's id could come back as another's.
        owner[name] = first.setdefault(id(x), (name, x))[0]

    shortest = min(probe.texts, key=lambda text: len(text.ids))
    with _inputs(layers, see):
        run_blocks(parts, padded([shortest]))
    return owner
