"""A survey that reads half of the rows whole says of them what a whole one says, and of the others where the sinks are."""

import numpy as np
import torch

from mneme.audit.surveying import _survey_some
from mneme.diff.survey import survey_rows
from tests.diff.pairs import changed_in_block, random_rows


def test_half_a_survey() -> None:
    pair, ids, layers = changed_in_block(1), random_rows(8), [1]
    held = np.arange(8) % 2 == 1
    whole = survey_rows(pair, ids, batch_rows=4)._asdict()
    half = _survey_some(pair, ids, torch.from_numpy(held), layers, 4)._asdict()
    for name, column in half.items():
        if name not in ("mean_gain", "sink"):
            assert np.allclose(column[held], whole[name][held], atol=1e-6), name
    assert np.isneginf(half["logp_base"][~held]).all()
    assert np.isnan(half["relative_change"][~held]).all()
    alone = survey_rows(pair, ids[~held], batch_rows=4)
    assert np.array_equal(half["sink"][~held][:, :, layers], alone.sink[:, :, layers])
