"""What both models say at some places, against what transformers says of each text alone."""

import numpy as np
import pytest
import torch

from mneme.models.pair import ModelPair
from mneme.predict.watched import watched_probability
from tests import laws
from tests.diff.pairs import changed_in_block, random_rows


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return changed_in_block(1)


def test_watched_probability_of_padded_texts(pair: ModelPair) -> None:
    """Texts of 5 and 9 tokens padded with anything: what each model says of them alone, one text at a time."""
    ids = random_rows()[:2, :9].long()
    watched = [np.array([1, 4, 7]), np.array([2])]
    at = torch.tensor([[0, 1], [0, 4], [1, 8]])
    padded = ids.clone()
    padded[0, 5:] = 3
    found = watched_probability(pair, padded, at, watched)
    for number, which in enumerate(("base", "tuned")):
        with torch.no_grad(), pair.using(which) as parts:  # type: ignore[arg-type]
            for place, (row, position) in enumerate(at.tolist()):
                said = parts.model(input_ids=ids[row : row + 1, :position]).logits[0, -1].softmax(-1)
                expected = [float(said[types].sum()) for types in (torch.tensor([1, 4, 7]), torch.tensor([2]))]
                laws.padding(found[number, place], np.array(expected, dtype=np.float32))
