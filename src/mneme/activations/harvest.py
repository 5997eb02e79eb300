"""Both models read the same rows; what comes out is m = (h_base + h_tuned)/sqrt2 and q = (h_tuned - h_base)/sqrt2.

The rotation keeps lengths (|m|^2 + |q|^2 = |h_base|^2 + |h_tuned|^2). q is taken in float32 from the two residual streams
before anything is rounded: a change of 1 % is lost when two large half-precision numbers are stored and subtracted later.
Cost: two forward passes that stop after the deepest layer; no logits, no cache.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mneme.errors import BadCorpus, BadOption
from mneme.models.hooks import check_layers, read_residuals
from mneme.models.pair import ModelPair, Side
from mneme.models.ranks import Ranks
from mneme.models.sides import on_both

SINK_FACTOR = 10.0
"""A position is an attention sink when the base residual there is so many times longer than the median one."""

_ROOT_HALF = 0.5**0.5
ALONE = Ranks()
"""One process does everything."""


@dataclass(frozen=True)
class Harvested:
    """One batch of rows at every harvested layer, raw units, float32, on the device of the models."""

    rows: slice
    m: dict[int, Float[Tensor, "batch seq d_model"]]
    q: dict[int, Float[Tensor, "batch seq d_model"]]


def harvest(
    pair: ModelPair,
    ids: Int[Tensor, "row seq"],
    layers: Sequence[int],
    *,
    batch_rows: int,
    ranks: Ranks = ALONE,
) -> Iterator[Harvested]:
    """m and q after each of `layers` for rows without padding, `batch_rows` rows at a time, in order.

    Several processes (`ranks`) run every n-th batch each and share what they found, so that all of them get all batches, the
    same to the last bit, while they compute the next; each must ask for the same harvest. Exactly zero q where the two models
    are the same. Memory: one batch, two of every process where there are several. Raises BadOption for layers that do not
    exist, rows longer than the models' positions, or no layers at all.
    """
    if not layers or batch_rows < 1:
        raise BadOption("a harvest needs at least one layer and at least one row a batch.")
    check_layers(pair.base_parts, layers)
    longest = pair.max_positions
    if longest is not None and ids.shape[1] > longest:
        raise BadOption(
            f"rows of {ids.shape[1]} tokens are longer than the {longest} positions of these models. Give shorter rows."
        )
    return _harvest(pair, ids, sorted(set(layers)), batch_rows, ranks)


def _harvest(pair: ModelPair, ids: Tensor, layers: list[int], batch_rows: int, ranks: Ranks) -> Iterator[Harvested]:
    batches = [slice(start, min(start + batch_rows, len(ids))) for start in range(0, len(ids), batch_rows)]
    on_their_way: list[tuple[slice, Callable[[], Tensor]]] = []
    for first in range(0, len(batches), ranks.world):
        turns = batches[first : first + ranks.world]
        own = _both(pair, ids[turns[ranks.rank]], layers) if ranks.rank < len(turns) else None
        begun: list[tuple[slice, Callable[[], Tensor]]] = []
        for source, rows in enumerate(turns):
            if source == ranks.rank and own is not None:
                stacked = own
            else:
                shape = (2, len(layers), rows.stop - rows.start, ids.shape[1], pair.width)
                stacked = torch.empty(shape, device=pair.device)
            begun.append((rows, ranks.share_later(stacked, source)))
        # Alone there is nothing to wait for; else these arrive while the next are computed.
        ready, on_their_way = (on_their_way, begun) if ranks.world > 1 else (begun, [])
        yield from _arrived(ready, layers)
    yield from _arrived(on_their_way, layers)


def _arrived(shared: list[tuple[slice, Callable[[], Tensor]]], layers: list[int]) -> Iterator[Harvested]:
    for rows, waited in shared:
        yield Harvested(rows, *({layer: side[i] for i, layer in enumerate(layers)} for side in waited()))


def _both(
    pair: ModelPair, ids: Tensor, layers: list[int], exact: bool = False
) -> Float[Tensor, "rotated layer batch seq d_model"]:
    """m and q of one batch at all layers, stacked."""

    def states(side: Side) -> dict[int, Tensor]:
        with pair.using(side, exact=exact) as parts:
            return read_residuals(parts, ids, layers)

    base, tuned = on_both(pair, states)
    out = torch.empty(2, len(layers), *ids.shape, pair.width, device=pair.device)
    for i, layer in enumerate(layers):
        out[0, i], out[1, i] = rotate(base.pop(layer), tuned.pop(layer))
    return out


def rounding_share(pair: ModelPair, ids: Int[Tensor, "row seq"], layers: Sequence[int]) -> dict[int, float]:
    """How much of the change at each of `layers` is rounding of matrix products in bfloat16: |q - q in float32|^2 as a share
    of the centred |q in float32|^2, over all tokens of `ids` but the first of every row. 0 for a pair in float32, and where
    there is no change. Cost: two passes of both models over `ids`, one of them in float32."""
    order = sorted(set(layers))
    if pair.precision == "float32":
        return dict.fromkeys(order, 0.0)
    rounded, true = (_both(pair, ids, order, exact)[1, :, :, 1:].flatten(1, 2).double() for exact in (False, True))
    error = (rounded - true).square().sum((1, 2))
    size = (true - true.mean(1, keepdim=True)).square().sum((1, 2))
    shares = torch.where(size > 0, error / size, torch.zeros_like(size))
    return dict(zip(order, shares.tolist(), strict=True))


def rotate(
    base: Float[Tensor, "*token d_model"], tuned: Float[Tensor, "*token d_model"]
) -> tuple[Float[Tensor, "*token d_model"], Float[Tensor, "*token d_model"]]:
    """(m, q) in float32, where `base` is."""
    base, tuned = base.float(), tuned.to(base.device, torch.float32)
    return (tuned + base).mul_(_ROOT_HALF), (tuned - base).mul_(_ROOT_HALF)


def base_norms(m: Float[Tensor, "*token d_model"], q: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token"]:
    """|h_base| of every token, from the rotated pair: h_base = (m - q)/sqrt2."""
    norms: Tensor = (m - q).norm(dim=-1) * _ROOT_HALF
    return norms


def sink_mask(norms: Float[Tensor, "row seq"], factor: float = SINK_FACTOR) -> Bool[Tensor, "row seq"]:
    """True at attention sinks: the first token of every row, and base residuals longer than `factor` times the median.

    Their huge norms (Sun et al. 2024, massive activations) would be most of what a dictionary learns.
    """
    sinks = norms > factor * norms.median()
    sinks[:, 0] = True
    return sinks


def shuffled(
    stream: Iterable[Harvested],
    *,
    buffer_tokens: int,
    batch_tokens: int,
    seed: int,
    drop: Bool[Tensor, "row seq"] | None = None,
) -> Iterator[dict[int, tuple[Float[Tensor, "token d_model"], Float[Tensor, "token d_model"]]]]:
    """Token batches {layer: (m, q)} in an order mixed by a buffer of `buffer_tokens` in memory, one pass over the stream.

    Each time the buffer is full a random `batch_tokens` leave it and new tokens take their places; the rest leaves when
    the stream has ended, and the very last batch may be smaller. `drop` is True at positions to leave out (sinks). A token
    leaves with all its layers. Memory: buffer_tokens x d_model x 8 bytes a layer, whatever the length of the stream.
    """
    if not 0 < batch_tokens <= buffer_tokens:
        raise BadOption(f"batches of {batch_tokens} tokens do not fit a buffer of {buffer_tokens}. Give a larger buffer.")
    generator = torch.Generator().manual_seed(seed)
    buffer = _Buffer(buffer_tokens)
    for harvested in stream:
        keep = None if drop is None else ~drop[harvested.rows].flatten()
        fresh = {layer: _rows_of(harvested, layer, keep) for layer in harvested.m}
        n = len(next(iter(fresh.values()))[0])
        taken = 0
        while taken < n:
            if not len(buffer.holes):
                yield buffer.take(batch_tokens, generator)
            count = min(n - taken, len(buffer.holes))
            buffer.put({layer: (m[taken : taken + count], q[taken : taken + count]) for layer, (m, q) in fresh.items()})
            taken += count
    if not len(buffer.filled):
        raise BadCorpus("no token was left after the attention sinks were taken out. Give more text or longer rows.")
    while len(buffer.filled):
        yield buffer.take(min(batch_tokens, len(buffer.filled)), generator)


def _rows_of(harvested: Harvested, layer: int, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    m, q = harvested.m[layer].flatten(0, 1), harvested.q[layer].flatten(0, 1)
    return (m, q) if keep is None else (m[keep], q[keep])


class _Buffer:
    """Fixed places in memory; which are filled and which are holes is kept as index tensors."""

    def __init__(self, capacity: int) -> None:
        self.places: dict[int, tuple[Tensor, Tensor]] = {}
        self.holes = torch.arange(capacity)
        self.filled = torch.empty(0, dtype=torch.long)

    def put(self, fresh: dict[int, tuple[Tensor, Tensor]]) -> None:
        """Copy new tokens into holes; there must be enough."""
        n = len(next(iter(fresh.values()))[0])
        where, self.holes = self.holes[:n], self.holes[n:]
        self.filled = torch.cat([self.filled, where])
        for layer, (m, q) in fresh.items():
            if layer not in self.places:
                capacity = n + len(self.holes) + len(self.filled) - len(where)
                self.places[layer] = (m.new_empty(capacity, m.shape[1]), q.new_empty(capacity, q.shape[1]))
            self.places[layer][0][where] = m
            self.places[layer][1][where] = q

    def take(self, n: int, generator: torch.Generator) -> dict[int, tuple[Tensor, Tensor]]:
        """Copies of `n` random tokens, whose places become holes."""
        order = torch.randperm(len(self.filled), generator=generator)
        where, self.filled = self.filled[order[:n]], self.filled[order[n:]]
        self.holes = torch.cat([self.holes, where])
        return {layer: (m[where], q[where]) for layer, (m, q) in self.places.items()}
