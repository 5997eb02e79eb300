"""The scores of `screen` by name: what each needs, its unit, and how it is computed. High is suspect."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mneme.activations.projection import answer_means
from mneme.errors import BadOption
from mneme.models.architecture import Parts
from mneme.models.kept_readings import scored_in_run
from mneme.models.likelihood import mean_nll
from mneme.models.pair import LoadedModel, load_model
from mneme.options import Track
from mneme.runs import Arrays, RunFolder
from mneme.screen.ches import can_branch, ches, edit_similarity, last_hidden_similarity, ln_ches, pair_sums
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


def score_pairs(parts: Parts, pairs: Sequence[EncodedPair], names: Sequence[str], *, branches: bool | None = None) -> Arrays:
    """Score -> one value a pair; one pass of the model serves all. `pairs` are bare (`encode_pairs(…, bare=True)`): an answer
    is its words and one closing token, which the hidden states look forward to and the edit distance leaves out. `branches`:
    as in `pair_sums`."""
    found: dict[str, Any] = {}
    if set(names) - {"edit"}:
        sums = pair_sums(parts, pairs, branches=branches)
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


class RowScorer:
    """One score of rows: what all rows share is made once, then any of them can be scored."""

    def __init__(self, name: str, loaded: LoadedModel, rows: Sequence[Encoded], needs: RowNeeds) -> None:
        self.name, self.loaded, self.rows, self.needs = name, loaded, rows, needs
        self.told = ""
        """Where the direction comes from, of a projection."""
        if name == "gradient":
            self.unwanted = mean_gradient(loaded.parts, needs.unwanted)
            self.wanted = mean_gradient(loaded.parts, needs.wanted) if needs.wanted else None
        elif name == "gap":
            self.other = load_model(str(needs.other), **needs.options)
        else:
            self.direction, self.told = needs.direction(loaded.parts)

    def of(self, numbers: Sequence[int]) -> Float[ndarray, " row"]:
        """One value for each of these rows."""
        parts, rows = self.loaded.parts, [self.rows[i] for i in numbers]
        values: Any
        if self.name == "gradient":
            values = gradient_similarity(parts, rows, self.unwanted, self.wanted)
        elif self.name == "gap":
            values = perplexity_gap(mean_nll(parts, rows), mean_nll(self.other.parts, rows))
        else:
            bare = [self.needs.bare[i] for i in numbers]
            own_tokens = 0 if self.name == "projection-prompt" else 64
            values = projection_difference(parts, self.loaded.tokenizer, bare, self.direction, own_tokens=own_tokens)
        return np.asarray(values, dtype=np.float64)


def pair_scores_in_run(
    run: RunFolder, parts: Parts, pairs: Sequence[EncodedPair], names: Sequence[str], track: Track
) -> dict[str, ndarray]:
    """`score_pairs`, kept by the run as it goes on. `pairs` are bare."""
    advance = track("scores (pairs)", len(pairs))
    branches = cache(lambda: can_branch(parts, pairs))  # asked of every small piece it would cost as much as the scores

    def score(numbers: list[int]) -> Arrays:
        read = set(names) - {"edit"}
        found = score_pairs(parts, [pairs[i] for i in numbers], names, branches=branches() if read else None)
        advance(len(numbers))
        return found

    lengths = [len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs]
    return scored_in_run(run, "scores", parts, lengths, score)
