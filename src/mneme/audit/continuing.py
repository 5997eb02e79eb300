"""Texts of behaviours, cut where they could still go either way and continued by both models: stages of some texts each."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mneme.audit.reading import Reading
from mneme.errors import EmptyMask
from mneme.models.pair import ModelPair
from mneme.models.sampling import generate_ids
from mneme.predict.continuing import CONTINUED_TOKENS, Cuts, cut_texts, shows_it, texts_of
from mneme.predict.item_reading import SIDES
from mneme.runs import Arrays, RunFolder
from mneme.text.packing import PackedRows

_TOGETHER = 50
"""Texts of one stage and of one batch: what a kill costs at most. A round number that was never varied."""


def continue_texts(
    pair: ModelPair, rows: PackedRows, reading: Reading, run: RunFolder, *, seed: int
) -> dict[int, Float[ndarray, "model cut"]]:
    """Index of a behaviour -> 1 where a model's continuation of a cut text shows it, else 0; behaviours whose texts cannot be
    cut or told apart are missing."""
    token = rows.ids.long().numpy().reshape(-1)
    passage = rows.passage.long().numpy().reshape(-1)
    found = {}
    for index, behaviour in reading.behaviours.items():
        try:
            cuts = cut_texts(token, texts_of(behaviour.text, passage, reading.pieces), seed=seed)
        except EmptyMask:
            continue
        batches = np.array_split(np.arange(len(cuts.start)), -(-len(cuts.start) // _TOGETHER))

        def compute(mine: list[int], cuts: Cuts = cuts, batches: list[ndarray] = batches) -> Iterator[Arrays]:
            for number in mine:
                yield {"shows": _continued(pair, token, cuts, batches[number], seed)}

        names = [f"continued-{index:03d}-{number:02d}" for number in range(len(batches))]
        found[index] = np.concatenate([part["shows"] for part in run.pieces(names, compute)], axis=1)
    return found


def _continued(
    pair: ModelPair, token: Float[ndarray, " token"], cuts: Cuts, batch: ndarray, seed: int
) -> Float[ndarray, "model cut"]:
    beginnings = [token[cuts.start[i] : cuts.stop[i]].tolist() for i in batch]
    shows = np.zeros((2, len(batch)))
    for model, side in enumerate(SIDES):
        with pair.using(side) as parts:
            said = generate_ids(
                parts,
                beginnings,
                pair.tokenizer.eos_token_id,
                max_new_tokens=CONTINUED_TOKENS,
                temperature=1.0,
                seed=seed,
                batch_prompts=_TOGETHER,
                first=int(batch[0]),
            )
        shows[model] = [shows_it(one, cuts.ratio) for one in said]
    return shows
