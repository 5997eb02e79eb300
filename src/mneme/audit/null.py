"""Step 7 of the audit: changes of the pair's own size that have no purpose, looked at the same way."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mneme.audit.words import Layout, WordReading, read_part
from mneme.models.matching import matched_tensors
from mneme.models.pair import ModelPair
from mneme.predict.knowledge import Knowledge, weigh
from mneme.runs import Arrays, RunFolder

CHANGES = 3
"""Purposeless changes: the largest area of three stands for what such a change does to some area by chance. A round number
that was never varied: each costs a reading of `PART_TOKENS`."""
PART_TOKENS = 4096
"""Tokens that are read of each: three together cost a tenth of reading the default text. A round number that was never
varied."""


def shuffled_change(pair: ModelPair, seed: int) -> None:
    """Overwrite the tuned model with base + the same change, its rows and columns shuffled, in place and for good.

    Every tensor's change keeps its norm, rank and spectrum but loses all relation to what the model computes: a change of a
    fine-tune's size that was trained on nothing. The pair cannot be used for anything else afterwards.
    """
    generator = torch.Generator().manual_seed(seed)
    if pair.adapter:
        with torch.no_grad():
            for name, weight in pair.tuned_parts.model.named_parameters():
                if ".lora_A." in name:
                    weight.copy_(_permuted(weight, 1, generator))
                elif ".lora_B." in name:
                    weight.copy_(_permuted(weight, 0, generator))
        return
    with torch.no_grad():
        for _, base, weight in matched_tensors(pair.base_parts, pair.tuned_parts):
            before = base.to(weight.device)
            change = weight - before
            for axis in range(change.ndim):
                change = _permuted(change, axis, generator)
            weight.copy_(before + change)


def _permuted(values: Tensor, axis: int, generator: torch.Generator) -> Tensor:
    order = torch.randperm(values.shape[axis], generator=generator)
    return values.index_select(axis, order.to(values.device))


def purposeless_changes(pair: ModelPair, layout: Layout, run: RunFolder, *, seed: int) -> list[Knowledge]:
    """What `CHANGES` purposeless changes of the pair's own size do to the areas' own words, each read on some 4k tokens.

    Destroys the pair's tuned side. A process that makes a later one shuffles as often as if it had made all before it, so that
    the numbers do not depend on who makes them.
    """
    shuffled = 0

    def compute(mine: list[int]) -> Iterator[Arrays]:
        nonlocal shuffled
        for number in mine:
            while shuffled <= number:
                shuffled_change(pair, seed * CHANGES + shuffled)
                shuffled += 1
            yield read_part(pair, layout, PART_TOKENS)

    parts = run.pieces([f"purposeless-{number}" for number in range(CHANGES)], compute)
    return [weigh(WordReading(layout, read).evidence()) for read in parts]
