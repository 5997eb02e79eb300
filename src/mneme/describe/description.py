"""A sentence about a latent from what it fires on and what it does, written offline from counts alone.

Contexts are windows of text round firing tokens: half of them from the top activations, half spread over the deciles below,
so that a latent that fires strongly on one thing and weakly on many is not described by the one thing alone. The contexts
that the words are taken from and those that they are scored on are disjoint passages.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mneme.describe.phrases import detection_score, key_words

_WORDS, _TOKENS = 6, 4
"""Key words, and tokens of each kind, in a sentence of two lines. Round numbers that were never varied."""


class Description(NamedTuple):
    """What a latent fires on, in words."""

    text: str
    key_words: list[str]
    score: float | None
    """Balanced accuracy on held-out contexts; None = too few to judge."""


def sample_firings(
    value: Float[ndarray, " firing"], passage: Int[ndarray, " firing"], *, limit: int, seed: int
) -> tuple[Int[ndarray, " shown"], Int[ndarray, " held_out"]]:
    """Indices of firings to describe from and to judge by: one per passage (its strongest), top ones and deciles, split so
    that no passage is on both sides (every other one in order of strength)."""
    order = np.lexsort((np.arange(len(value)), -value))
    _, first = np.unique(passage[order], return_index=True)
    strongest = order[np.sort(first)]
    if len(strongest) > 2 * limit:
        top, rest = strongest[:limit], strongest[limit:]
        spread = rest[np.linspace(0, len(rest) - 1, limit).astype(int)]
        strongest = np.concatenate([top, spread])
    shown, held_out = strongest[0::2], strongest[1::2]
    generator = np.random.default_rng(seed)
    return shown, generator.permutation(held_out)


def describe_offline(
    shown: list[str],
    held_out: list[str],
    background: list[str],
    promoted: list[str],
    suppressed: list[str],
    fires_at: list[str],
) -> Description:
    """Describe from `shown` contexts, score on `held_out` against the second half of `background` (words come from the first).

    `fires_at` are the tokens on which it fires most often; `promoted`/`suppressed` come from the logit lens.
    """
    half = max(1, len(background) // 2)
    words = [word for word, _ in key_words(shown, background[:half])] if shown and background else []
    score = detection_score(words, held_out, background[half:])
    pieces = []
    if words:
        pieces.append("text about " + ", ".join(words[:_WORDS]))
    if fires_at:
        pieces.append("fires on " + ", ".join(f"“{token}”" for token in fires_at[:_TOKENS]))
    if promoted:
        pieces.append("pushes up " + ", ".join(f"“{token}”" for token in promoted[:_TOKENS]))
    if suppressed:
        pieces.append("pushes down " + ", ".join(f"“{token}”" for token in suppressed[:_TOKENS]))
    return Description("; ".join(pieces) if pieces else "fires on no text that differs from the rest", words, score)
