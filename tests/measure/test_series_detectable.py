"""What a checkpoint's task score says it would have told apart is no more than can be."""

import numpy as np
import pytest

from mneme.measure.series import LIKELIHOOD, _score


@pytest.mark.parametrize(("spread", "possible"), [(0.05, True), (3.0, False)])
def test_a_detectable_change_of_a_probability_is_clipped(spread: float, possible: bool) -> None:
    """A probability of .9 cannot rise by more than .1: it was said to need "704 points"."""
    nats = np.random.default_rng(0).normal(np.log(0.6), spread, 10)
    _, detectable = _score({"sums": nats * 10, "counts": np.full(10, 10.0)}, LIKELIHOOD)
    assert (detectable is not None) == possible
    assert detectable is None or 0 < detectable <= 0.4
