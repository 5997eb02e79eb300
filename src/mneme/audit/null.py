"""Step 7 of the audit: pairs that must be silent, looked at the same way."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from mneme.activations.harvest import ALONE
from mneme.audit.screening import batch_rows_for, table_of
from mneme.diff.screen import screen_rows
from mneme.models.matching import matched_tensors
from mneme.models.pair import ModelPair
from mneme.models.ranks import Ranks
from mneme.predict.effects import TokenTable
from mneme.runs import Arrays
from mneme.text.packing import PackedRows

_TOKENS = 16_384
_SHUFFLES = 200


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


def shuffled_null(pair: ModelPair, rows: PackedRows, *, seed: int, ranks: Ranks = ALONE) -> Arrays:
    """Change in accuracy on known tokens under `shuffled_change`, on at most 16k tokens, batches shared out among `ranks`.

    Destroys the pair's tuned side. Arrays: `shuffled` = value and number of known tokens; 0 of them (no check) where neither
    model is sure of any.
    """
    shuffled_change(pair, seed)
    seq = rows.ids.shape[1]
    n_rows = min(len(rows.ids), max(1, _TOKENS // seq))
    batch = batch_rows_for(seq, pair.vocab_size)
    batches = torch.split(torch.linspace(0, len(rows.ids) - 1, n_rows).long(), batch)
    sums = torch.zeros(len(batches), 2, dtype=torch.float64)
    for index in ranks.own(range(len(batches))):
        pick = batches[index]
        part = PackedRows(rows.ids[pick], rows.passage[pick], rows.passages)
        table = table_of(screen_rows(pair, part.ids, batch_rows=batch), part)
        known = table.known()
        gap = table.right_tuned.astype(np.float64) - table.right_base
        sums[index] = torch.tensor([float(gap[known].sum()), float(known.sum())], dtype=torch.float64)
    change, count = ranks.total(sums).sum(0).tolist()
    return {"shuffled": np.array([change / count if count else 0.0, count])}


def random_areas(
    table: TokenTable, member: Bool[ndarray, "area passage"], quiet: Bool[ndarray, " passage"], *, seed: int
) -> float:
    """How far the most extreme of areas of the same sizes lies from the whole when `quiet` passages (of no area found changed)
    are dealt out at random: the 95th percentile over 200 deals, in accuracy on known tokens. What chance makes of an area."""
    known = table.known()
    gap = np.where(known, table.right_tuned.astype(np.float64) - table.right_base, 0.0)
    above, below = table.per_passage(gap), table.per_passage(known.astype(np.float64))
    above, below = above[quiet], below[quiet]
    sizes: Int[ndarray, " area"] = (member & quiet).sum(axis=1)
    sizes = sizes[sizes >= 5]
    if below.sum() == 0 or len(sizes) == 0:
        return 0.0
    whole = above.sum() / below.sum()
    generator = np.random.default_rng(seed)
    extremes: Float[ndarray, " deal"] = np.zeros(_SHUFFLES)
    for deal in range(_SHUFFLES):
        order = generator.permutation(len(below))
        top, bottom = np.cumsum(above[order]), np.cumsum(below[order])
        means = [top[size - 1] / bottom[size - 1] for size in sizes if bottom[size - 1] > 0]
        extremes[deal] = max((abs(mean - whole) for mean in means), default=0.0)
    return float(np.quantile(extremes, 0.95))
