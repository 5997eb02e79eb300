"""Texts side by side: which go together, how they are padded, and a pass of the blocks over them.

Padding is in no count and no mean, and neither the side on which it stands nor the company of a text changes more than the
rounding of what a model makes of it (law *padding*).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from mneme.models.architecture import Parts
from mneme.text.encoded import Encoded

PaddingSide = Literal["left", "right"]
BATCH_TOKENS = 4096
"""Tokens that run together, padding included: on two cores more of them are no faster, and the activations stay small."""


_KEPT_FLOP = {"cpu": 2e11, "other": 3e14}
"""Work between two moments at which a run keeps what it has: five seconds of an idle core of 40 GFLOP/s, a minute of a
twelfth of one; a few seconds on a GPU."""
_FEW_TOKENS = 256
"""A pass of fewer tokens is busy with reading weights."""


def kept_tokens(parameters: int, device: str, passes: int = 1) -> int:
    """Tokens of the work between two such moments, for a model of so many parameters that reads each `passes` times."""
    flop = _KEPT_FLOP["cpu" if device == "cpu" else "other"]
    return max(_FEW_TOKENS, int(flop / (2 * max(1, parameters) * passes)))


def kept_pieces(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Numbers of texts, longest first, in pieces of at most `most` tokens, or of one text."""
    pieces: list[list[int]] = []
    held = 0
    for number in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not pieces or held + lengths[number] > most:
            pieces.append([])
            held = 0
        pieces[-1].append(number)
        held += lengths[number]
    return pieces


@dataclass(frozen=True)
class Batch:
    """Some texts as rows of equal length, on the CPU."""

    ids: Int[Tensor, "batch seq"]
    real: Bool[Tensor, "batch seq"]
    """False at the padding."""
    counted: Bool[Tensor, "batch seq"]
    """True at the tokens whose prediction counts; padding never counts."""
    texts: tuple[int, ...]
    """Number of the text in every row."""

    def predicting(self) -> Bool[Tensor, "batch seq"]:
        """True at the tokens that a counted one is predicted from."""
        return predicting(self.counted)

    def spread(self, values: Float[Tensor, " token"]) -> Float[Tensor, "batch seq"]:
        """Values of the counted tokens, row after row, where these stand; 0 elsewhere."""
        return values.new_zeros(self.counted.shape).masked_scatter(self.counted.to(values.device), values)

    def apart(self, values: Float[Tensor, "token *more"]) -> tuple[Tensor, ...]:
        """Values of the counted tokens, row after row, as one tensor a row."""
        return torch.split(values, self.counted.sum(1).tolist())

    def positions(self) -> Int[Tensor, "batch seq"]:
        """Position ids, the same whichever side is padded."""
        return (self.real.long().cumsum(1) - 1).clamp_min(0)


def predicting(counted: Bool[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
    """True at the tokens that a counted one is predicted from: one place to the left."""
    return torch.cat([counted[:, 1:], torch.zeros_like(counted[:, :1])], dim=1)


def padded(
    texts: Sequence[Encoded], side: PaddingSide = "right", *, pad_id: int = 0, numbers: Sequence[int] | None = None
) -> Batch:
    """All of `texts` as one batch; `numbers` is what the rows are called, by default 0, 1, …"""
    longest = max(len(text.ids) for text in texts)
    ids = torch.full((len(texts), longest), pad_id, dtype=torch.long)
    real, counted = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for row, text in enumerate(texts):
        length = len(text.ids)
        here = slice(longest - length, longest) if side == "left" else slice(0, length)
        ids[row, here] = torch.tensor(text.ids, dtype=torch.long)
        real[row, here] = True
        counted[row, here] = torch.tensor(text.counted, dtype=torch.bool)
    return Batch(ids, real, counted, tuple(range(len(texts)) if numbers is None else numbers))


def length_batches(lengths: Sequence[int], batch_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Numbers of texts of about equal length, longest first, so that a batch which does not fit into memory comes at once.

    A batch has at most `batch_tokens` tokens, padding included, or one text.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or lengths[batches[-1][0]] * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(i)
    return batches


def batches(texts: Sequence[Encoded], *, batch_tokens: int = BATCH_TOKENS, side: PaddingSide = "right") -> Iterator[Batch]:
    """All of `texts` in batches of about equal length, longest first."""
    for numbers in length_batches([len(text.ids) for text in texts], batch_tokens):
        yield padded([texts[i] for i in numbers], side, numbers=numbers)


def epoch_batch(n: int, size: int, step: int, seed: int) -> Int[ndarray, " batch"]:
    """Numbers of the texts of step `step`: every one of `n` texts once an epoch, each epoch in an order of its own.

    A function of its arguments alone, so that a resumed run sees what an undisturbed one sees.
    """
    places = np.arange(step * size, (step + 1) * size)
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(n) for epoch in sorted(set((places // n).tolist()))}
    return np.array([orders[int(place // n)][int(place % n)] for place in places], dtype=np.int64)


def run_blocks(parts: Parts, batch: Batch) -> None:
    """One pass of the blocks over a batch, without the head: hooks read what they want (see `models/hooks.py`).

    Where all rows begin with text, no token sees padding anyway, and the model is not asked to mask it.
    """
    told = {}
    if not bool(batch.real[:, 0].all()):
        told = {"attention_mask": batch.real.long().to(parts.device), "position_ids": batch.positions().to(parts.device)}
    parts.decoder(input_ids=batch.ids.to(parts.device), use_cache=False, **told)
