"""Activations that dictionaries of a layer learn from and are judged on: in memory, or from the models when asked. Ours."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from torch import Tensor

from mneme.activations.ahead import made_ahead
from mneme.activations.harvest import ALONE, harvest, shuffled
from mneme.models.keeping import Keeping, write_state
from mneme.models.pair import ModelPair
from mneme.models.ranks import Ranks

RESIDENT_BYTES = 1 << 29
"""Activations that are kept in memory at most, 512 MB: the peak of an audit then stays at 1.5 GB from 0.5 to 4 M tokens
(docs/log.md, scale)."""
BYTES_A_DIMENSION = 8
"""Of a kept token: m and q in float32."""
_PIECE = 4096
"""Kept activations that are read at once: as many as a batch of rows makes. A round number that was never varied."""
_LONG_PASS = 5.0
"""Seconds of a pass that is kept when it has ended: reading it back takes well under one. A round number that was never
varied."""
_COLUMNS = ("place", "m", "q")


class Stream(NamedTuple):
    """Where the activations of one layer come from."""

    pair: ModelPair
    ids: Int[Tensor, "row seq"]
    layer: int
    sink: Bool[Tensor, "row seq"]
    batch_rows: int
    seed: int
    ranks: Ranks = ALONE


class Half:
    """The activations of one layer over half of the rows, attention sinks left out: in memory where both halves fit in 512 MB,
    else from a new pass of the models whenever they are asked for."""

    def __init__(self, stream: Stream, resident: bool, checkpoint: Path | None = None) -> None:
        """One pass of the models where the half is to be `resident`; kept in the file `checkpoint`, from which it goes on."""
        self.stream, self.resident = stream, resident
        self.tokens = int((~stream.sink).sum())
        self._kept: tuple[Tensor, Tensor, Tensor] | None = None
        if resident:
            self._kept = self._gathered(checkpoint)

    def _gathered(self, checkpoint: Path | None) -> tuple[Tensor, Tensor, Tensor]:
        """(flat position, m, q) of all tokens, written where they stay: joining the pieces would take the memory twice."""
        stream, device = self.stream, self.stream.pair.device
        n_rows, shape = len(stream.ids), (self.tokens, stream.pair.width)
        place = torch.empty(self.tokens, dtype=torch.long, device=device)
        kept = place, torch.empty(shape, device=device), torch.empty(shape, device=device)
        start = rows = 0
        if checkpoint is not None and checkpoint.is_file():
            state = load_file(checkpoint, device=str(device))
            start, rows = len(state["place"]), int(state["rows"])
            for column, name in zip(kept, _COLUMNS, strict=True):
                column[:start] = state[name]
        began, keeping, first = time.monotonic(), Keeping(), rows
        for at, *found in self._passes(stream.ids[first:], stream.sink[first:]) if first < n_rows else ():
            for column, part in zip(kept, (at + first * stream.ids.shape[1], *found), strict=True):
                column[start : start + len(part)] = part
            start, rows = start + len(at), min(rows + stream.batch_rows, n_rows)
            if checkpoint is not None and (keeping.is_due() or (rows == n_rows and time.monotonic() - began > _LONG_PASS)):
                parts = {name: column[:start].contiguous() for name, column in zip(_COLUMNS, kept, strict=True)}
                write_state(checkpoint, parts | {"rows": torch.tensor(rows)})
                keeping.kept()
        return kept

    def _passes(self, ids: Tensor, sink: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(flat position in `ids`, m, q) of the tokens that are no sinks, a batch of rows at a time, by the models."""
        stream = self.stream
        for found in harvest(stream.pair, ids, [stream.layer], batch_rows=stream.batch_rows, ranks=stream.ranks):
            keep = ~sink[found.rows].flatten()
            place = (keep.nonzero().squeeze(1) + found.rows.start * ids.shape[1]).to(stream.pair.device)
            yield place, found.m[stream.layer].flatten(0, 1)[keep], found.q[stream.layer].flatten(0, 1)[keep]

    def pieces(self) -> Iterator[tuple[Int[Tensor, " token"], Float[Tensor, "token d_model"], Float[Tensor, "token d_model"]]]:
        """(flat position row * seq + place, m, q) of all tokens in order, a few thousand at a time."""
        if self._kept is None:
            yield from self._passes(self.stream.ids, self.stream.sink)
            return
        for start in range(0, self.tokens, _PIECE):
            place, m, q = (column[start : start + _PIECE] for column in self._kept)
            yield place, m, q

    def sample(self, limit: int) -> tuple[Float[Tensor, "token d_model"], Float[Tensor, "token d_model"]]:
        """m and q of at most `limit` tokens, from rows spread evenly over the half."""
        stream = self.stream
        per_row = max(1, self.tokens // len(stream.ids))
        n_rows = min(len(stream.ids), -(-limit // per_row))
        pick = torch.linspace(0, len(stream.ids) - 1, n_rows).long()
        if self._kept is None:
            _, m, q = zip(*self._passes(stream.ids[pick], stream.sink[pick]), strict=True)
            return torch.cat(m)[:limit], torch.cat(q)[:limit]
        place, whole_m, whole_q = self._kept
        chosen = torch.isin(place // stream.ids.shape[1], pick.to(place.device)).nonzero().squeeze(1)[:limit]
        return whole_m[chosen], whole_q[chosen]

    def batches(self, batch: int, steps: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The shuffled batches `start` to `steps`: out of memory, or every epoch anew from the models through a fixed buffer.
        Whatever `start` is, batch n is the same; epochs that lie before it whole are not read."""
        done, epoch, a_pass = 0, 0, self.tokens // batch
        generator = torch.Generator().manual_seed(self.stream.seed)
        while done < steps:
            made: Iterator[tuple[Tensor, Tensor]]
            order = torch.empty(0) if self._kept is None else torch.randperm(self.tokens, generator=generator)
            if done < start and done + a_pass <= start:
                done, epoch = done + a_pass, epoch + 1
                continue
            if self._kept is not None:
                made = (
                    (self._kept[1].index_select(0, part), self._kept[2].index_select(0, part))
                    for part in torch.split(order.to(self.stream.pair.device), batch)
                )
            else:
                made = made_ahead(self._mixed(batch, epoch), self.stream.pair.device)
            for m, q in made:
                if len(q) < batch:
                    continue
                if done >= start:
                    yield m, q
                done += 1
                if done == steps:
                    return
            epoch += 1

    def _mixed(self, batch: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        stream = self.stream
        rows = harvest(stream.pair, stream.ids, [stream.layer], batch_rows=stream.batch_rows, ranks=stream.ranks)
        buffer = max(batch, RESIDENT_BYTES // (stream.pair.width * BYTES_A_DIMENSION) // 2)
        for found in shuffled(rows, buffer_tokens=buffer, batch_tokens=batch, seed=stream.seed + epoch, drop=stream.sink):
            yield found[stream.layer]
