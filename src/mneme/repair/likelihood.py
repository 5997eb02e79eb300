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
from mneme.results import Estimate
from mneme.stats import bootstrap_weights, ratio_of_sums
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


def share_undone(readings: ProbeReadings, *, seed: int) -> Estimate:
    """How much of the change moved back, with an interval over texts. Raises EmptyMask where nothing had changed."""
    return ratio_of_sums(readings.moved_back(), readings.change(), UNIT, seed=seed)


def share_lost(readings: ProbeReadings, *, seed: int) -> Estimate:
    """The same for text that should stay as tuned; a token that moved further from the base does not make up for another."""
    return ratio_of_sums(readings.moved_back(floor=0.0), readings.change(), UNIT, seed=seed)


def selectivity(target: ProbeReadings, retain: ProbeReadings, *, seed: int, n_resamples: int = 1000) -> Estimate:
    """Share undone on the target minus share lost on the retained text.

    Both sets of texts are resampled, independently (percentile bootstrap); `n` is the smaller number of texts.
    """
    undone, over_target = target.moved_back(), target.change()
    lost, over_retain = retain.moved_back(floor=0.0), retain.change()
    first = bootstrap_weights(len(undone), n_resamples, seed)
    second = bootstrap_weights(len(lost), n_resamples, seed + 1)
    samples = (first @ undone) / np.maximum(first @ over_target, 1e-12)
    samples = samples - (second @ lost) / np.maximum(second @ over_retain, 1e-12)
    low, high = np.quantile(samples, [0.025, 0.975])
    value = float(undone.sum() / over_target.sum() - lost.sum() / over_retain.sum())
    return Estimate(value=value, low=float(low), high=float(high), unit=UNIT, n=min(len(undone), len(lost)))


def check_changed(probe: Probe, base: Float[ndarray, " token"], tuned: Float[ndarray, " token"], *, wanted: str) -> None:
    """Raises NothingToRepair where the base shows the text as well as the tuned model does: mean |change| of a token below
    0.01 nats."""
    change = float(np.abs(tuned - base).mean())
    if change < SAME_NATS:
        raise NothingToRepair(
            f"The {probe.name} text is as likely under the base as under the tuned model (mean change {change:.4f} nats a "
            f"token, expected at least {SAME_NATS:g}): {wanted}"
        )
