"""How much probability both models give to some sets of token types at some places of texts that stand alone. Ours."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from mneme.models.heads import head_logits, rows_at_once
from mneme.models.pair import ModelPair, Side
from mneme.predict.item_reading import SIDES, states_of


def watched_probability(
    pair: ModelPair,
    ids: Int[Tensor, "text seq"],
    at: Int[Tensor, "place 2"],
    watched: Sequence[Int[ndarray, " _type"]],
    sides: Sequence[Side] = SIDES,
) -> Float[ndarray, "model place watched"]:
    """Probability that each of the models gives to each watched set of token types, where it predicts token `at` = (text,
    position), position >= 1, of texts that stand alone. Logits are made there alone, some at a time.

    Texts are padded on the right with any token: nothing before it sees what follows (law *padding*).
    """
    indicator = torch.zeros(pair.vocab_size, len(watched))
    for number, types in enumerate(watched):
        indicator[torch.from_numpy(types), number] = 1.0
    found = np.zeros((len(sides), len(at), len(watched)), dtype=np.float32)
    step = rows_at_once(pair)
    for model, (side, states) in enumerate(zip(sides, states_of(pair, ids, at, sides), strict=True)):
        for a in range(0, len(at), step):
            chosen = head_logits(pair, side, states[a : a + step]).softmax(-1)
            found[model, a : a + step] = (chosen @ indicator.to(chosen.device)).cpu().numpy()
    return found
