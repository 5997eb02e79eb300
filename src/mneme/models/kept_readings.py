"""Readings of texts that a run keeps as it goes on."""

from collections.abc import Callable, Sequence

import numpy as np

from mneme.models.architecture import Parts
from mneme.models.batching import kept_pieces, kept_tokens
from mneme.runs import Arrays, RunFolder


def pieces_for(parts: Parts, lengths: Sequence[int]) -> list[list[int]]:
    """Numbers of the texts of these lengths, a few seconds' work of this model at a time."""
    return kept_pieces(lengths, kept_tokens(parts.model.num_parameters(), parts.device.type))


def scored_in_run(
    run: RunFolder, name: str, parts: Parts, lengths: Sequence[int], score: Callable[[list[int]], Arrays]
) -> Arrays:
    """`score` of the texts of these lengths (one value each), a few seconds' work at a time, kept by the run as `name`; in the
    order of the texts."""
    pieces = pieces_for(parts, lengths)
    found = run.each(name, len(pieces), lambda piece: score(pieces[piece]))
    back = np.argsort([number for piece in pieces for number in piece])
    return {key: np.concatenate([one[key] for one in found])[back] for key in found[0]}
