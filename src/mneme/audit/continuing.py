"""Texts of behaviours, cut where they could still go either way and continued by both models: stages of some texts each."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mneme.audit.reading import Reading
from mneme.errors import EmptyMask
from mneme.models.pair import ModelPair
from mneme.models.sampling import generate_ids
from mneme.predict.continuing import CONTINUED_TOKENS, Cuts, cut_texts, shows_it, texts_of, times_each
from mneme.predict.item_reading import SIDES
from mneme.runs import Arrays, RunFolder
from mneme.text.packing import PackedRows

_TOGETHER = 96
"""Continuations of one stage and of one batch, or those of one text: what a kill costs at most. Never varied."""


def continue_texts(
    pair: ModelPair, rows: PackedRows, reading: Reading, run: RunFolder, *, seed: int
) -> dict[int, Float[ndarray, "model cut"]]:
    """Index of a behaviour -> share of a model's continuations of each cut text that show it; behaviours whose texts cannot be
    cut or told apart are missing."""
    token = rows.ids.long().numpy().reshape(-1)
    passage = rows.passage.long().numpy().reshape(-1)
    found = {}
    for index, behaviour in reading.behaviours.items():
        try:
            cuts = cut_texts(token, texts_of(behaviour.text, passage, reading.pieces), seed=seed)
        except EmptyMask:
            continue
        each = times_each(len(cuts.start))
        batches = np.array_split(np.arange(len(cuts.start)), -(-len(cuts.start) * each // _TOGETHER))

        def compute(
            mine: list[int], cuts: Cuts = cuts, batches: list[ndarray] = batches, each: int = each
        ) -> Iterator[Arrays]:
            for number in mine:
                yield {"shows": _continued(pair, token, cuts, np.repeat(batches[number], each), each, seed)}

        names = [f"continued-{index:03d}-{number:02d}" for number in range(len(batches))]
        found[index] = np.concatenate([part["shows"] for part in run.pieces(names, compute)], axis=1)
    return found


def _continued(
    pair: ModelPair, token: Int[ndarray, " token"], cuts: Cuts, batch: Int[ndarray, " text"], each: int, seed: int
) -> Float[ndarray, "model cut"]:
    """`batch`: numbers of the texts, every one `each` times in a row."""
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
                first=int(batch[0]) * each,
            )
        shows[model] = [shows_it(one, cuts.ratio) for one in said]
    return np.asarray(shows.reshape(2, -1, each).mean(axis=2))
