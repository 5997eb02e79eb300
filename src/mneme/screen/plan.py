"""What a screening will take, said before it starts, from a small piece of its reading, here and now."""

from collections.abc import Sequence
from typing import Any

from mneme.models.architecture import Parts
from mneme.models.footprint import likelihood_footprint, peak_bytes
from mneme.options import counted
from mneme.screen.trial import Trial
from mneme.text.pairs import EncodedPair, answers_of

_ARMS = 3
"""Trial trainings: on all rows, on those kept, on as many at random."""


def tokens_of(encoded: Sequence[Any]) -> int:
    """Of all rows or pairs."""
    if isinstance(encoded[0], EncodedPair):
        return sum(len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in encoded)
    return sum(len(ids) for ids, _ in encoded)


def screen_plan(parts: Parts, encoded: Sequence[Any], names: Sequence[str], steps: int) -> str:
    """One sentence: rows, tokens, seconds and memory of these scores and of a trial of `steps` an arm (0: none)."""
    pairs = isinstance(encoded[0], EncodedPair)
    texts = answers_of(encoded)[0] if pairs else encoded
    own = likelihood_footprint(parts, texts, parts.embedding.parameters())
    each = {"gradient": own.step_seconds, "projection": 3 * own.forward_seconds, "gap": 2 * own.forward_seconds}
    reading = sum(each.get(name, own.forward_seconds) for name in names)
    if pairs:  # one pass serves all, and edits are counted without a model
        reading = own.forward_seconds if set(names) - {"edit"} else 0.0
    tokens = tokens_of(encoded)
    trial = _ARMS * steps * Trial.batch_rows * (tokens / len(encoded)) * own.step_seconds
    longest = max(len(text.ids) for text in texts)
    together = longest * Trial.batch_rows * (2 if pairs else 1) * own.saved_bytes if steps else 0.0
    return (
        f"Plan: {counted(len(encoded), 'pair' if pairs else 'row')}, {tokens:,} tokens, about "
        f"{tokens * reading + trial:,.0f} s here, peak memory about {(peak_bytes() + together) / 1e9:.1f} GB."
    )
