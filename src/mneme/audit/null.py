"""Step 7 of the audit: changes of the pair's own size that have no purpose, looked at the same way."""

from collections.abc import Iterator, Mapping

import torch
from numpy import ndarray
from torch import Tensor

from mneme.audit.words import Layout, WordReading
from mneme.models.matching import matched_tensors
from mneme.models.pair import ModelPair, Side
from mneme.models.slices import blocks_along
from mneme.predict.item_reading import ReadingPlan, item_log_p, items_alone, join_batches, read_items
from mneme.predict.knowledge import WordEvidence
from mneme.runs import Arrays, RunFolder

CHANGES = 3
"""Purposeless changes: the largest area of three stands for what such a change does to some area by chance."""
NULL_TOKENS = 4096
"""Tokens that each of them is read on."""
QUICK_NULL_TOKENS = 2048
"""The same of a quick audit."""


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
            orders = [torch.randperm(size, generator=generator).to(weight.device) for size in weight.shape]
            before = base.to(weight.device)
            if torch.equal(before.to(weight.dtype), weight):
                continue
            # In place and in blocks: a second matrix of a large vocabulary is more than the rest of an audit takes.
            weight.sub_(before)
            for axis, order in enumerate(orders):
                for block in blocks_along(weight, (axis + 1) % weight.ndim) if weight.ndim > 1 else [weight.detach()]:
                    block.copy_(block.index_select(axis, order))
            weight.add_(before)


def _permuted(values: Tensor, axis: int, generator: torch.Generator) -> Tensor:
    order = torch.randperm(values.shape[axis], generator=generator)
    return values.index_select(axis, order.to(values.device))


def purposeless_changes(
    pair: ModelPair, layouts: Mapping[str, Layout], run: RunFolder, *, seed: int, tokens: int
) -> dict[str, tuple[WordEvidence, ...]]:
    """What `CHANGES` purposeless changes of the pair's own size do to the areas' own words of every layout, by its name: each
    read on about `tokens` tokens of the documents that have such words, the base once, the changed models each. A layout of
    which no item is read is missing.

    Destroys the pair's tuned side. A process that makes a later one shuffles as often as if it had made all before it, so that
    the numbers do not depend on who makes them.
    """
    read = {name: items_alone(one.plan, one.items, tokens, pair.max_positions) for name, one in layouts.items()}
    read = {name: (items, plan) for name, (items, plan) in read.items() if plan.batches}
    pieces = [(number, name) for number in range(CHANGES) for name in read]
    shuffled = 0

    def compute(mine: list[int]) -> Iterator[Arrays]:
        nonlocal shuffled
        base = {name: _said(pair, read[name][1], "base") for name in dict.fromkeys(pieces[i][1] for i in mine)}
        for number, name in (pieces[i] for i in mine):
            plan = read[name][1]
            while shuffled <= number:
                shuffled_change(pair, seed * CHANGES + shuffled)
                shuffled += 1
            tuned = (item_log_p(pair, plan, batch, "tuned") for batch in range(len(plan.batches)))
            parts = (read_items(plan, i, one, other) for i, (one, other) in enumerate(zip(base[name], tuned, strict=True)))
            yield join_batches(parts, len(plan.item_word), 0)

    found: dict[str, list[WordEvidence]] = {name: [] for name in read}
    for (_, name), arrays in zip(pieces, run.pieces([f"purposeless{name}-{i}" for i, name in pieces], compute), strict=True):
        items, plan = read[name]
        found[name].append(WordReading(layouts[name]._replace(plan=plan, items=items), arrays).evidence())
    return {name: tuple(words) for name, words in found.items()}


def _said(pair: ModelPair, plan: ReadingPlan, side: Side) -> list[ndarray]:
    return [item_log_p(pair, plan, batch, side) for batch in range(len(plan.batches))]
