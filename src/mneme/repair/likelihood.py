"""The development probe: how much of the change in likelihood of a text was undone, and how much of another's was lost.

L is the log-likelihood (nats) of a counted token. Its change L_tuned - L_base has a sign, up for what was learned and down for
what was lost; undone is what moved back, counted no further than the base:
sum min(sign (L_tuned - L_repaired), |L_tuned - L_base|) / sum |L_tuned - L_base|, over the tokens of all texts. By token and
not by text, because one text holds both: answers that became likelier after questions that became less likely. Ours. Laws: 0
for the tuned model and 1 for the base, exactly.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mneme.errors import NothingToRepair
from mneme.results import Estimate, TooFew
from mneme.stats import clustered_ratio, difference_of_ratios
from mneme.text.probes import Probe

SAME_NATS = 0.01
"""A text whose tokens changed by less than this on average counts as unchanged."""
UNIT = "share of the change in likelihood"


class ProbeReadings(NamedTuple):
    """Log-likelihood of the counted tokens of one probe, text after text, nats: under base, tuned and repaired model."""

    text: Int[ndarray, " token"]
    """Number of the text that each token stands in, ascending."""
    base: Float[ndarray, " token"]
    tuned: Float[ndarray, " token"]
    repaired: Float[ndarray, " token"]

    def change(self) -> Float[ndarray, " text"]:
        """Sum of |L_tuned - L_base| over the tokens of every text."""
        return np.bincount(self.text, weights=np.abs(self.tuned - self.base))

    def moved_back(self, *, floor: float = -np.inf) -> Float[ndarray, " text"]:
        """How much of it was undone; of one token no less than `floor`."""
        change = self.tuned - self.base
        moved = np.minimum(np.sign(change) * (self.tuned - self.repaired), np.abs(change))
        return np.bincount(self.text, weights=np.maximum(moved, floor))


def share_undone(readings: ProbeReadings, *, seed: int) -> Estimate | TooFew:
    """How much of the change moved back, with an interval over texts. Raises EmptyMask where nothing had changed."""
    return clustered_ratio(readings.moved_back(), readings.change(), UNIT, seed=seed, of="texts")


def share_lost(readings: ProbeReadings, *, seed: int) -> Estimate | TooFew:
    """The same for text that should stay as tuned; a token that moved further from the base does not make up for another.

    Of the tuned model itself it is exactly 0: nothing moved in any text.
    """
    moved = readings.moved_back(floor=0.0)
    return clustered_ratio(moved, readings.change(), UNIT, seed=seed, identical=_untouched(readings), of="texts")


def selectivity(target: ProbeReadings, retain: ProbeReadings, *, seed: int) -> Estimate | TooFew:
    """Share undone on the target minus share lost on the retained text, whose texts are independent
    (`difference_of_ratios`)."""
    first = target.moved_back(), target.change()
    second = retain.moved_back(floor=0.0), retain.change()
    untouched = _untouched(target) and _untouched(retain)
    return difference_of_ratios(first, second, UNIT, seed=seed, identical=untouched, of="texts")


def _untouched(readings: ProbeReadings) -> bool:
    return bool(np.array_equal(readings.repaired, readings.tuned))


def check_changed(probe: Probe, base: Float[ndarray, " token"], tuned: Float[ndarray, " token"], *, wanted: str) -> None:
    """Raises NothingToRepair where the base shows the text as well as the tuned model does: mean |change| of a token below
    0.01 nats."""
    change = float(np.abs(tuned - base).mean())
    if change < SAME_NATS:
        raise NothingToRepair(
            f"The {probe.name} text is as likely under the base as under the tuned model (mean change {change:.4f} nats a "
            f"token, expected at least {SAME_NATS:g}): {wanted}"
        )
