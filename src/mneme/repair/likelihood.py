"""The development probe: how much of the change in likelihood of a text was undone, and how much of another's was lost.

L is the log-likelihood (nats) of a counted token. Its change L_tuned - L_base has a sign, up for what was learned and down for
what was lost; undone is what moved back, counted no further than the base:
sum min(sign (L_tuned - L_repaired), |L_tuned - L_base|) / sum |L_tuned - L_base|, over the tokens of all texts. By token and
not by text, because one text holds both: answers that became likelier after questions that became less likely. Ours. Laws: 0
for the tuned model and 1 for the base, exactly.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from mneme.errors import NothingToRepair
from mneme.models.architecture import Parts
from mneme.models.logits import token_log_probs
from mneme.repair.probes import Batch, Probe, batches
from mneme.results import Estimate, TooFew
from mneme.stats import clustered_ratio, difference_of_ratios

SAME_NATS = 0.01
"""A text whose tokens changed by less than this on average counts as unchanged."""
UNIT = "share of the change in likelihood"


class Readings(NamedTuple):
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


def logits_of(parts: Parts, batch: Batch) -> Float[torch.Tensor, "batch seq vocab"]:
    """Logits of a padded batch."""
    logits: torch.Tensor = parts.model(
        input_ids=batch.ids.to(parts.device),
        attention_mask=batch.real.long().to(parts.device),
        position_ids=batch.positions.to(parts.device),
        use_cache=False,
    ).logits
    return logits


@torch.no_grad()
def log_likelihoods(parts: Parts, probe: Probe, *, batch_texts: int = 32) -> Float[ndarray, " token"]:
    """log p of every counted token, nats, text after text in the order of the probe."""
    first = np.concatenate([[0], np.cumsum(counted_tokens(probe))]).astype(np.int64)
    found = np.zeros(first[-1])
    for batch in batches(probe, batch_texts=batch_texts):
        logits = logits_of(parts, batch)[batch.predicting().to(parts.device)]
        values = token_log_probs(logits, batch.ids[batch.counted].to(parts.device)).double().cpu().numpy()
        place = np.concatenate([np.arange(first[text], first[text + 1]) for text in batch.text])
        found[place] = values
    return found


def counted_tokens(probe: Probe) -> Int[ndarray, " text"]:
    """How many tokens of every text count."""
    return np.array([sum(marks) for marks in probe.counted], dtype=np.int64)


def text_numbers(probe: Probe) -> Int[ndarray, " token"]:
    """The number of the text that every counted token stands in."""
    return np.repeat(np.arange(len(probe.ids)), counted_tokens(probe))


def share_undone(readings: Readings, *, seed: int) -> Estimate | TooFew:
    """How much of the change moved back, with an interval over texts. Raises EmptyMask where nothing had changed."""
    return clustered_ratio(readings.moved_back(), readings.change(), UNIT, seed=seed, of="texts")


def share_lost(readings: Readings, *, seed: int) -> Estimate | TooFew:
    """The same for text that should stay as tuned; a token that moved further from the base does not make up for another.

    Of the tuned model itself it is exactly 0: nothing moved in any text.
    """
    moved = readings.moved_back(floor=0.0)
    return clustered_ratio(moved, readings.change(), UNIT, seed=seed, identical=_untouched(readings), of="texts")


def selectivity(target: Readings, retain: Readings, *, seed: int) -> Estimate | TooFew:
    """Share undone on the target minus share lost on the retained text, whose texts are independent
    (`difference_of_ratios`)."""
    first = target.moved_back(), target.change()
    second = retain.moved_back(floor=0.0), retain.change()
    untouched = _untouched(target) and _untouched(retain)
    return difference_of_ratios(first, second, UNIT, seed=seed, identical=untouched, of="texts")


def _untouched(readings: Readings) -> bool:
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
