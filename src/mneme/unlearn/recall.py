"""What a model still knows of a text: likelihood of its tokens, and the share of what it knew that it still says first.

*Recalled* is a token that tells of this text and not of the other (its type is at least e times as frequent here; new in its
document, since a repeated word can be copied) and to which the model as it was gave p > 1/2. *Kept* is the share of recalled
tokens that are still the first choice. Form ("the", "question:") is common to both texts, stays predictable after any
unlearning, and would hide that the rest is gone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.models.architecture import Parts
from mneme.models.likelihood import token_predictions
from mneme.results import Estimate, TooFew
from mneme.runs import Arrays
from mneme.stats import clustered_rate, clustered_ratio
from mneme.text.encoded import counted_tokens
from mneme.text.pieces import Pieces

RECALLED_NATS = float(np.log(2.0))
"""A token of p > 1/2 has fewer nats than that."""


class TokenReading(NamedTuple):
    """Every predicted token of a text, in its order, under one model."""

    document: Int[ndarray, " token"]
    token: Int[ndarray, " token"]
    nll: Float[ndarray, " token"]
    """Nats."""
    right: Bool[ndarray, " token"]
    """The model's first choice is this token."""

    def arrays(self) -> Arrays:
        """As a stage of a run keeps it."""
        return dict(self._asdict())


def read_pieces(parts: Parts, pieces: Pieces, advance: Callable[[int], None] = lambda _tokens: None) -> TokenReading:
    """Reads every piece; `advance` is told how many tokens were read."""
    found = token_predictions(parts, pieces.texts, advance=lambda batch: advance(int(batch.real.sum())))
    document = np.repeat(pieces.document, counted_tokens(pieces.texts))
    token = np.array([token for text in pieces.texts for token in text.ids[1:]], dtype=np.int64)
    return TokenReading(document, token, -found.log_prob, found.right)


def telling_types(own: Int[ndarray, " token"], other: Int[ndarray, " other_token"], vocabulary: int) -> Bool[ndarray, " type"]:
    """Types at least e times as frequent in `own` as in `other` (1/2 added to each count) that occur in `own` at all."""
    counts = [np.bincount(tokens, minlength=vocabulary) for tokens in (own, other)]
    rates = [np.log((count + 0.5) / len(tokens)) for count, tokens in zip(counts, (own, other), strict=True)]
    return np.asarray((rates[0] - rates[1] >= 1.0) & (counts[0] > 0))


def recalled_tokens(before: TokenReading, telling: Bool[ndarray, " type"]) -> Bool[ndarray, " token"]:
    """Tokens of a telling type, new in their document, that the model as it was gave more than half of its probability."""
    first = np.zeros(len(before.token), dtype=bool)
    first[np.unique(before.document.astype(np.int64) * len(telling) + before.token, return_index=True)[1]] = True
    return np.asarray(first & telling[before.token] & (before.nll < RECALLED_NATS))


def likelihood(reading: TokenReading, *, seed: int) -> Estimate | TooFew:
    """Mean nats per token, clustered by document."""
    return _mean_nats(reading.nll, reading.document, seed)


def change_in_nats(before: TokenReading, after: TokenReading, *, seed: int) -> Estimate | TooFew:
    """Mean nats per token, after - before, paired by token and clustered by document; above 0 is forgotten. Identity: 0."""
    return _mean_nats(after.nll - before.nll, before.document, seed)


def kept(before: TokenReading, after: TokenReading, telling: Bool[ndarray, " type"]) -> Estimate | TooFew | None:
    """Share of the recalled tokens of `before` that are the first choice `after`, clustered by document; identity: 1.

    None where nothing was recalled.
    """
    recalled = recalled_tokens(before, telling)
    if not recalled.any():
        return None
    size = int(before.document.max()) + 1
    counts = np.bincount(before.document, weights=recalled, minlength=size)
    hits = np.bincount(before.document, weights=recalled & after.right, minlength=size)
    found = clustered_rate(hits, counts, "share of recalled tokens")
    return found if isinstance(found, TooFew) else found.estimate


def _mean_nats(values: Float[ndarray, " token"], document: Int[ndarray, " token"], seed: int) -> Estimate | TooFew:
    counts = np.bincount(document)
    sums = np.bincount(document, weights=values)
    same = not values.any()
    return clustered_ratio(sums, counts.astype(np.float64), "nats per token", seed=seed, identical=same, of="texts")
