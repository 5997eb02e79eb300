"""Token sequences that begin alike, each beginning read once.

Sequences are laid into rows as trees: a token stands once for all sequences that begin with the same tokens up to it, sees
those tokens alone, and has the position that it has in its sequence. So a prompt is read once for all its answers, and what a
chat template writes before every prompt once a row. For a decoder whose layers mix tokens by attention under the mask that it
is given, what each token gets is what it gets in its sequence alone, to rounding (the tree attention of Miao et al. 2024,
arXiv 2305.09781, without a cache). Other models mix otherwise (recurrence, convolutions, biases by distance), so no model is
believed: `reads_forests` tries it out on the sequences at hand.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from mneme.models.architecture import Parts
from mneme.models.hooks import read, read_residuals, stop_after

ROW_TOKENS = 384
"""Tokens of a row at most (a longer sequence has a row of its own): attention over a row is then a few percent of the work."""
_AGREE = 1e-3
"""Largest difference, relative to the vector, between a token in the forest and in its sequence alone: ten times what float32
rounding makes of it; bfloat16 misses it, and is read sequence by sequence."""


class Forest(NamedTuple):
    """Rows of trees; a row that is shorter than the longest is filled with tokens that see themselves alone."""

    ids: Int[Tensor, "row seq"]
    position: Int[Tensor, "row seq"]
    sees: Bool[Tensor, "row seq seq"]
    """Token (second axis) sees token (third axis)."""
    row: Int[ndarray, " sequence"]
    places: tuple[Int[ndarray, " token"], ...]
    """Of every sequence: where in its row each of its tokens stands."""


def plant(sequences: Sequence[Sequence[int]], row_tokens: int = ROW_TOKENS) -> Forest:
    """Lay out the sequences, sorted, so that those that begin alike stand in one row as far as `row_tokens` allow."""
    order = sorted(range(len(sequences)), key=lambda one: tuple(sequences[one]))
    rows: list[list[tuple[int, int]]] = []  # (id, place of the token before it, -1 at the beginning)
    row_of = np.zeros(len(sequences), dtype=np.int64)
    places: list[list[int]] = [[] for _ in sequences]
    last: list[int] = []
    path: list[int] = []
    for number in order:
        own = list(sequences[number])
        common = next((i for i, (a, b) in enumerate(zip(own, last, strict=False)) if a != b), min(len(own), len(last)))
        if not rows or len(rows[-1]) + len(own) - common > row_tokens:
            rows.append([])
            common = 0
        path = path[:common]
        for token in own[common:]:
            rows[-1].append((token, path[-1] if path else -1))
            path.append(len(rows[-1]) - 1)
        row_of[number], places[number], last = len(rows) - 1, list(path), own
    longest = max(map(len, rows), default=0)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    position = torch.zeros(len(rows), longest, dtype=torch.long)
    sees = torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1)
    for number, row in enumerate(rows):
        for place, (token, before) in enumerate(row):
            ids[number, place] = token
            if before >= 0:
                position[number, place] = position[number, before] + 1
                sees[number, place] |= sees[number, before]
    return Forest(
        ids=ids, position=position, sees=sees, row=row_of, places=tuple(np.array(one, dtype=np.int64) for one in places)
    )


def read_forest(parts: Parts, forest: Forest, rows: slice, layer: int) -> Float[Tensor, "row seq d_model"]:
    """The residual stream after block `layer` at every token of these rows."""
    visible = forest.sees[rows, None].to(parts.device)
    if getattr(parts.model.config, "_attn_implementation", "") == "eager":
        # Eager attention adds the mask to its scores; the others take which tokens are seen.
        lowest = torch.finfo(torch.float32).min
        visible = torch.zeros(visible.shape, device=parts.device).masked_fill_(~visible, lowest)
    with torch.no_grad(), read(parts, [layer]) as found, stop_after(parts, layer):
        parts.decoder(
            input_ids=forest.ids[rows].to(parts.device),
            position_ids=forest.position[rows].to(parts.device),
            attention_mask=visible,
            use_cache=False,
        )
    return found[layer]


def reads_forests(parts: Parts, sequences: Sequence[Sequence[int]]) -> bool:
    """Whether the model gives the tokens of a forest what it gives them in their sequences: tried on the longest sequence and
    the two that stand beside it."""
    order = sorted(range(len(sequences)), key=lambda one: tuple(sequences[one]))
    middle = max(range(len(order)), key=lambda place: len(sequences[order[place]]))
    chosen = [sequences[one] for one in order[max(0, middle - 1) : middle + 2]]
    layer = len(parts.blocks) - 1
    forest = plant(chosen, sum(map(len, chosen)))
    try:
        together = read_forest(parts, forest, slice(None), layer)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError):
        return False  # its forward pass takes no such mask or positions
    for number, own in enumerate(chosen):
        alone = read_residuals(parts, torch.tensor([list(own)]), [layer])[layer][0]
        found = together[forest.row[number], torch.from_numpy(forest.places[number]).to(together.device)]
        if not bool(((found - alone).norm(dim=-1) <= _AGREE * alone.norm(dim=-1)).all()):
            return False
    return True
