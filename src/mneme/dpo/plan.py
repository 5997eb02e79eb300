"""What preference training will take, said before it starts, from a small piece of it, here and now."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from mneme.models.architecture import Parts
from mneme.models.footprint import likelihood_footprint, resident_bytes
from mneme.options import counted
from mneme.text.pairs import EncodedPair, answers_of

_TABLES_OF_LOGITS = 3
"""Alive at once in TRL's loss: the logits of a batch, their gradient, and what the log-softmax keeps of it."""


def preference_plan(model: nn.Module, parts: Parts, pairs: Sequence[EncodedPair], args: Any) -> str:
    """One sentence: steps, tokens, seconds, memory of `model`, whose blocks are `parts`, under the trainer's `args`. Pairs of
    a batch are padded to the longest answer of them; the reference reads every pair once."""
    batch, accumulate, steps = args.per_device_train_batch_size, args.gradient_accumulation_steps, args.max_steps
    resident = resident_bytes()  # before the probe, whose memory the training will use again
    chosen, rejected = answers_of(pairs)
    own = likelihood_footprint(parts, chosen)
    widths = np.array([max(len(one.ids), len(other.ids)) for one, other in zip(chosen, rejected, strict=True)])
    drawn = np.random.default_rng(0).choice(widths, (256, min(batch, len(widths))))
    tokens = 2 * batch * float(drawn.max(1).mean())
    seconds = steps * accumulate * tokens * own.step_seconds + 2 * float(widths.sum()) * own.forward_seconds
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    vocabulary = int(parts.model.config.get_text_config().vocab_size)
    together = 2 * batch * int(widths.max())
    peak = resident + 12 * trained + together * (own.saved_bytes + 4 * _TABLES_OF_LOGITS * vocabulary)
    return (
        f"Plan: {counted(steps, 'step')} of {counted(batch * accumulate, 'pair')}, "
        f"{steps * accumulate * tokens:,.0f} tokens with padding, "
        f"about {seconds:,.0f} s here, peak memory about {peak / 1e9:.1f} GB."
    )
