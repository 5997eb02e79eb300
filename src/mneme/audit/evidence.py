"""Everything that effects are read from, as numbers: what the audit computes with, keeps in `evidence.npz`, and what
`mneme verify` computes with again. No torch and no text: words of the text stand in it only as names of types.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.predict.behaviour import behaviour_change
from mneme.predict.knowledge import WordEvidence
from mneme.predict.verdicts import Measure
from mneme.results import Baselines, Estimate
from mneme.stats import TooFew, clustered_ratio

ORDINARY = "ordinary_nll_change"
FEW = 5
"""Passages below which an area, or a behaviour in an area, is absent: with fewer, no interval of `mneme.stats` holds."""


class SampledTokens(NamedTuple):
    """One token of every passage that was looked at as a whole."""

    passage: Int[ndarray, " place"]
    document: Int[ndarray, " place"]
    seen: Bool[ndarray, " place"]
    kl_tuned_to_base: Float[ndarray, " place"]
    kl_base_to_tuned: Float[ndarray, " place"]
    nll: Float[ndarray, "model place"]
    relative: Float[ndarray, " place"]
    """|h_tuned - h_base| / |h_base|."""


class OrdinaryText(NamedTuple):
    """mneme's own text under both models (`mneme.audit.ordinary`)."""

    log_p: Float[ndarray, "model text"]
    """Sums over the counted tokens, nats, base first."""
    counted: Int[ndarray, " text"]

    def loss(self) -> Estimate | None:
        """By how much it became less likely, nats per token (negative: likelier), a paragraph being a cluster; None where
        there are too few."""
        counts = self.counted.astype(np.float64)
        found = clustered_ratio(self.log_p[0] - self.log_p[1], counts, "nats per token", seed=0, of="documents")
        return None if isinstance(found, TooFew) else found


class BehaviourSeen(NamedTuple):
    """A behaviour that is read in its text: where it shows, and what the models expect there."""

    passage: Int[ndarray, " place"]
    mass: Float[ndarray, "model place 2"]
    """Probability of its indicators and of the opposite ones."""
    text: Bool[ndarray, " passage"]
    """Text that shows it, or its opposite."""


class AuditEvidence(NamedTuple):
    """What both models say, of everything that an effect is made of."""

    words: WordEvidence
    types: tuple[str, ...]
    """Names of the types of the items."""
    sampled: SampledTokens
    member: Bool[ndarray, "area passage"]
    seeds: Int[ndarray, " area"]
    chance: frozenset[int]
    """Areas whose keywords stand together by chance."""
    behaviours: dict[int, BehaviourSeen]
    """Index of an area -> its text."""
    silent: dict[int, str]
    """Index of a behaviour -> why the text says nothing about it."""
    answered: dict[int, Float[ndarray, "model probe"]]
    """Index of an area -> p(shows) of its paired answers, base first."""
    unfollowed: frozenset[int]
    """Areas whose paired answers the base does not follow, so that they say nothing."""
    continued: dict[int, Float[ndarray, "model cut"]]
    """Index of a behaviour -> share of each model's continuations of each of its cut texts that show it."""
    null: tuple[WordEvidence, ...] = ()
    """The same items, or some of them, under changes without a purpose."""
    ordinary: OrdinaryText | None = None
    """Read where the user gave no text, and the tokenizer can write it."""
    written: "AuditEvidence | None" = None
    """The same of text that both models wrote about areas of which the given text has too little (`mneme.audit.lacking`)."""

    def baselines(self, member: Bool[ndarray, " passage"]) -> Baselines | None:
        """What the cheap signals say of the sampled tokens of these passages; None where there is none."""
        inside = member[self.sampled.passage] & self.sampled.seen
        if not inside.any():
            return None
        change = self.sampled.nll[1] - self.sampled.nll[0]
        return Baselines(
            kl=float(self.sampled.kl_tuned_to_base[inside].mean()),
            nll=float(change[inside].mean()),
            activation=float(self.sampled.relative[inside].mean()),
        )

    def overall(self) -> dict[str, Estimate]:
        """KL both ways and change in loss over the whole text, a token a passage; left out where there are too few."""
        columns = {
            "kl_tuned_to_base": self.sampled.kl_tuned_to_base,
            "kl_base_to_tuned": self.sampled.kl_base_to_tuned,
            "nll_change": self.sampled.nll[1] - self.sampled.nll[0],
        }
        figures: dict[str, Estimate] = {}
        seen = self.sampled.seen
        document = np.unique(self.sampled.document[seen], return_inverse=True)[1]
        counts = np.bincount(document).astype(np.float64)
        for name, values in columns.items():
            sums = np.bincount(document, weights=values[seen])
            found = clustered_ratio(sums, counts, "nats per token", seed=0, of="documents")
            if not isinstance(found, TooFew):
                figures[name] = found
        loss = self.ordinary_loss()
        return figures if loss is None else figures | {ORDINARY: loss}

    def ordinary_loss(self) -> Estimate | None:
        """What became of mneme's own text, where the user gave none."""
        return None if self.ordinary is None else self.ordinary.loss()

    def change(self, index: int, within: Bool[ndarray, " passage"] | None = None) -> Measure:
        """Change of one behaviour, over all its places or over those in the passages `within`.

        Errors: EmptyMask where fewer than 8 of them show the behaviour or its opposite.
        """
        seen = self.behaviours[index]
        inside = np.ones(len(seen.passage), dtype=bool) if within is None else within[seen.passage]
        base, tuned = seen.mass[:, inside].astype(np.float64)
        return behaviour_change(base, tuned)
