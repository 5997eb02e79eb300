"""The scores of `screen` by name: what each needs, its unit, and how it is computed. High is suspect."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from rich.console import Console
from rich.progress import Progress

from mneme.activations.projection import answer_means
from mneme.errors import BadOption
from mneme.models.architecture import Parts
from mneme.models.likelihood import mean_nll
from mneme.models.pair import LoadedModel, load_model
from mneme.runs import Arrays
from mneme.screen.ches import ches, edit_similarity, last_hidden_similarity, ln_ches, pair_sums
from mneme.screen.gradients import gradient_similarity, mean_gradient
from mneme.screen.projections import (
    Direction,
    contrast_direction,
    projection_difference,
    read_direction,
)
from mneme.text.encoded import Encoded
from mneme.text.pairs import EncodedPair

ROW_SCORES = {
    "gradient": "cosine with training on unwanted answers, minus that with wanted ones",
    "projection": "raw units of the residual stream along the direction, training answer - own answer",
    "projection-prompt": "the same with the end of the prompt in place of the own answer",
    "gap": "nats per token, this model - the other",
}
PAIR_SCORES = {
    "ln-ches": "squared length of the final hidden state",
    "ches": "squared length of the final hidden state, summed over tokens",
    "last-hidden": "squared length of the final hidden state, last token",
    "edit": "share of the tokens that need no edit",
}


@dataclass(frozen=True)
class RowNeeds:
    """What scores of rows are made from."""

    unwanted: list[Encoded]
    wanted: list[Encoded]
    bare_unwanted: list[Encoded]
    bare_wanted: list[Encoded]
    """The same rows without what closes an answer: what activations are averaged over."""
    bare: Sequence[Any]
    """Likewise, of the rows that are scored (of pairs, the pairs: no score of rows is asked for then)."""
    vector: str | Path | None
    layer: int | None
    other: str | Path | None
    options: dict[str, Any]

    def check(self, names: Sequence[str], parts: Parts) -> None:
        """Raise BadOption where a score lacks what it needs, or a vector does not fit the model."""
        if "gradient" in names and not self.unwanted:
            raise BadOption("--score gradient needs examples of the unwanted behaviour. Give --unwanted FILE.")
        if "gap" in names and self.other is None:
            raise BadOption("--score gap needs a second model, one that has the unwanted behaviour. Give --other MODEL.")
        if any(name.startswith("projection") for name in names):
            if self.vector is not None:
                read_direction(str(self.vector), self.layer, len(parts.blocks), parts.width)
            elif not (self.unwanted and self.wanted):
                raise BadOption("--score projection needs a direction. Give --vector FILE, or both --unwanted and --wanted.")

    def direction(self, parts: Parts) -> tuple[Direction, str]:
        """The direction, and where it comes from."""
        if self.vector is not None:
            found = read_direction(str(self.vector), self.layer, len(parts.blocks), parts.width)
            return found, f"{self.vector}, layer {found.layer}"
        layers = range(len(parts.blocks)) if self.layer is None else [self.layer]
        found = contrast_direction(
            *(answer_means(parts, rows, list(layers)) for rows in (self.bare_unwanted, self.bare_wanted))
        )
        layer = layers[found.layer]
        return Direction(found.vector, layer), f"{len(self.unwanted)} unwanted - {len(self.wanted)} wanted rows, layer {layer}"


def score_pairs(parts: Parts, pairs: Sequence[EncodedPair], names: Sequence[str]) -> Arrays:
    """Score -> one value a pair; one pass of the model serves all. `pairs` are bare (`encode_pairs(…, bare=True)`): an answer
    is its words and one closing token, which the hidden states look forward to and the edit distance leaves out."""
    found: dict[str, Any] = {}
    if set(names) - {"edit"}:
        sums = pair_sums(parts, pairs)
        found["ches"] = ches(sums.chosen, sums.rejected)
        found["ln-ches"] = ln_ches(sums.chosen, sums.rejected, sums.chosen_tokens, sums.rejected_tokens)
        found["last-hidden"] = last_hidden_similarity(sums.chosen_last, sums.rejected_last)
    if "edit" in names:
        found["edit"] = [edit_similarity(pair.chosen[:-1], pair.rejected[:-1]) for pair in pairs]
    return {name: np.asarray(found[name], dtype=np.float64) for name in names}


def perplexity_gap(base_nll: Float[ndarray, " row"], other_nll: Float[ndarray, " row"]) -> Float[ndarray, " row"]:
    """base - other, nats per token: above 0 where the other model expects the answer more than the base does.

    The gap by which Kaczér et al. 2025 (arXiv 2508.06249) rank rows, not divided by the base's and with the sign turned: there
    a row is safe where a misaligned model finds it unlikely, here it is suspect where it finds it likely.
    """
    gap: Float[ndarray, " row"] = base_nll - other_nll
    return gap


def score_rows(
    loaded: LoadedModel, rows: Sequence[Encoded], names: Sequence[str], needs: RowNeeds, console: Console
) -> Arrays:
    """Score -> one value a row, and `direction` (words) where a projection was asked for."""
    parts, found = loaded.parts, {}
    told = ""
    with Progress(console=console, transient=True) as progress:
        for name in names:
            task = progress.add_task(name, total=len(rows))

            def on_batch(done: int, task: Any = task) -> None:
                progress.update(task, completed=done)

            values: Any
            if name == "gradient":
                unwanted = mean_gradient(parts, needs.unwanted)
                wanted = mean_gradient(parts, needs.wanted) if needs.wanted else None
                values = gradient_similarity(parts, rows, unwanted, wanted, on_batch=on_batch)
            elif name == "gap":
                other = load_model(str(needs.other), **needs.options)
                values = perplexity_gap(mean_nll(parts, rows), mean_nll(other.parts, rows))
            else:
                direction, told = needs.direction(parts)
                own_tokens = 0 if name == "projection-prompt" else 64
                values = projection_difference(
                    parts, loaded.tokenizer, needs.bare, direction, own_tokens=own_tokens, on_batch=on_batch
                )
            found[name] = np.asarray(values, dtype=np.float64)
            progress.update(task, completed=len(rows))
    return {**found, "direction": np.array(told)} if told else found
