"""What a training will cost: said before it starts, from one small piece of it, here and now."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from mneme.models.architecture import Parts
from mneme.models.batching import padded
from mneme.models.footprint import Footprint, footprint, free_bytes, resident_bytes
from mneme.models.hooks import read, stop_after
from mneme.options import counted
from mneme.text.encoded import Encoded, answer_after
from mneme.train.divergence import nats_of, softmaxed
from mneme.train.learned import chunked_loss, length_pieces

_PROBE_TOKENS = 256
"""Tokens of the piece that is timed: enough to be busy with products, few enough to take a few seconds."""
_HEAD_BYTES = 5 * 2**25
"""Logits of a chunk, both forms of their softmax, the base's and a gradient: five times 32 MB."""
_RECOMPUTED = 4 / 3
"""With recomputed activations every block runs forward twice."""


def batch_tokens(lengths: Int[ndarray, " row"], batch: int, seed: int, *, cut: bool) -> tuple[float, int]:
    """(tokens a batch on average, most that run together), with padding: rows drawn at random, `cut` into pieces or not."""
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(lengths)[:batch].tolist() for _ in range(64)]
    pieces = [[[rows[i] for i in piece] for piece in length_pieces(rows)] if cut else [rows] for rows in drawn]
    sizes = [[max(piece) * len(piece) for piece in batch_pieces] for batch_pieces in pieces]
    longest = int(lengths.max())
    most = max(longest, *(max(one) for one in sizes)) if cut else longest * batch
    return float(np.mean([sum(one) for one in sizes])), most


def probe(parts: Parts, rows: list[dict[str, Any]], pad_id: int) -> Footprint:
    """Seconds and activations a token, of a piece of rows of middling length."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    middle = order[len(order) // 2 :] + order[: len(order) // 2][::-1]
    chosen: list[Encoded] = []
    while len(chosen) < len(middle) and sum(len(text.ids) for text in chosen) < _PROBE_TOKENS:
        row = rows[middle[len(chosen)]]
        learned = next((i for i, on in enumerate(row.get("completion_mask", [1])) if on), 1)
        ids, first = list(row["input_ids"]), max(1, learned)
        chosen.append(answer_after(ids[:first], ids[first:]))
    batch = padded(chosen, pad_id=pad_id)
    places = batch.predicting().to(parts.device)
    targets = batch.ids.roll(-1, 1)[batch.predicting()].to(parts.device)
    last = len(parts.blocks) - 1

    def nats(logits: Tensor, cut: slice) -> tuple[Tensor, Tensor]:
        values, slope = nats_of(softmaxed(logits), targets[cut])
        return values.sum(), slope

    def loss() -> Tensor:
        with read(parts, [last]) as found, stop_after(parts, last):
            parts.decoder(input_ids=batch.ids.to(parts.device), use_cache=False)
        return chunked_loss(parts, found[last][places], nats)

    return footprint(loss, batch.ids.numel(), parts.model.parameters())


@dataclass(frozen=True)
class TrainingWork:
    """What a training runs, beside the learning itself."""

    batches: int
    batch_rows: int
    base_passes: float = 0.0
    """Forward passes of the base a batch, for penalties."""
    own_rows: float = 0.0
    """Rows beside the batch that run forward and backward a step, as a share of it."""
    held_out_tokens: int = 0
    """Tokens that are read without a gradient over the whole run."""


@dataclass(frozen=True)
class TrainingPlan:
    """Time and memory of a training."""

    tokens: float
    """Of all batches, padding included."""
    seconds: float
    peak_bytes: float
    recomputes: bool
    """Activations would not fit into memory, so that they are made again in the backward pass."""

    def told(self, steps: int, rows: int, interleaved: int) -> str:
        """One sentence."""
        again = ", activations made twice to fit into memory" if self.recomputes else ""
        return (
            f"Plan: {counted(steps, 'step')}, {counted(rows, 'row')} ({interleaved:,} interleaved), "
            f"{self.tokens:,.0f} tokens with padding, "
            f"about {self.seconds:,.0f} s here, peak memory about {self.peak_bytes / 1e9:.1f} GB{again}."
        )


def plan_training(
    parts: Parts, rows: list[dict[str, Any]], pad_id: int, work: TrainingWork, *, lean: bool, seed: int
) -> TrainingPlan:
    """The plan for tokenised `rows` (`input_ids`, `completion_mask`), of the model as it is: its weights that require a
    gradient are those that are trained. `lean`: batches are cut into pieces (see `learned.py`).

    Memory at its highest is what is resident now, gradients, both moments of Adam, and the larger of the activations of a
    piece and of the copy of all weights that a checkpoint is written from.
    """
    resident = resident_bytes()  # before the probe, whose memory the training will use again
    own = probe(parts, rows, pad_id)
    lengths = np.array([len(row["input_ids"]) for row in rows])
    tokens, together = batch_tokens(lengths, work.batch_rows, seed, cut=lean)
    weights = list(parts.model.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    whole = 4 * sum(weight.numel() for weight in weights) if all(weight.requires_grad for weight in weights) else 0
    free, saved = free_bytes(), own.saved_bytes * together
    kept = 12 * trained + _HEAD_BYTES
    again = free is not None and kept + saved > free
    if again:  # then only what goes from block to block is kept, and one block's activations
        saved *= 2 / len(parts.blocks)
    step = own.step_seconds * (_RECOMPUTED if again else 1.0) * (1 + work.own_rows)
    seconds = work.batches * tokens * (step + work.base_passes * own.forward_seconds)
    seconds += work.held_out_tokens * own.forward_seconds
    peak = resident + 12 * trained + max(saved + _HEAD_BYTES, whole)
    return TrainingPlan(work.batches * tokens, seconds, peak, again)
