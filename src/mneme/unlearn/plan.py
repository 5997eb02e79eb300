"""What a run will cost, said before it starts."""

import time

import torch

from mneme.models.architecture import Parts
from mneme.models.batching import padded
from mneme.models.likelihood import logits_at
from mneme.unlearn.job import MEASURED_DOCUMENTS, TextSet
from mneme.unlearn.objective import needs_frozen
from mneme.unlearn.relearning import BATCH_DOCUMENTS, STEPS
from mneme.unlearn.settings import UnlearnSettings

_PROCESS_BYTES = 600_000_000
_BACKWARD = 2.0
"""A backward pass costs two forward ones."""


def disk_bytes(parts: Parts, settings: UnlearnSettings) -> int:
    """What the run writes: the result, and a checkpoint of weights and both moments of Adam."""
    every = _parameters(parts)
    trained = _trained(parts, settings)
    return 4 * (3 * trained + (trained if settings.lora_rank else every)) + 16_000_000


def say_plan(parts: Parts, settings: UnlearnSettings, forget: TextSet, retain: TextSet, relearn_documents: int) -> str:
    """One sentence: steps, tokens, seconds (from one pass over one batch, here and now), memory, disk."""
    sizes = [text.pieces.tokens / len(text.pieces) for text in (forget, retain)]
    step_tokens = settings.batch_documents * (sizes[0] + (sizes[1] if settings.retain_weight > 0 else 0))
    forwards = settings.steps * step_tokens * (1 + _BACKWARD + needs_frozen(settings))
    if relearn_documents:
        forwards += (1 + _BACKWARD) * STEPS * min(BATCH_DOCUMENTS, relearn_documents) * sum(sizes)
    for text, size in zip((forget, retain), sizes, strict=True):
        forwards += 2 * min(text.pieces.tokens, MEASURED_DOCUMENTS * size)
    copies = (1 if settings.lora_rank else 4) + (needs_frozen(settings) and not settings.lora_rank)
    vocabulary = int(parts.model.config.get_text_config().vocab_size)
    logits = 3 * settings.batch_documents * max(sizes) * vocabulary
    peak = 4 * (copies * _parameters(parts) + logits) + _PROCESS_BYTES
    seconds = forwards * _seconds_per_token(parts, settings, forget)
    return (
        f"Plan: {settings.steps} steps of {settings.method} on {settings.batch_documents} texts of either set, "
        f"{settings.steps * step_tokens:,.0f} tokens, about {seconds:.0f} s here, "
        f"peak memory about {peak / 1e9:.1f} GB, disk about {disk_bytes(parts, settings) / 1e6:.0f} MB."
    )


@torch.no_grad()
def _seconds_per_token(parts: Parts, settings: UnlearnSettings, text: TextSet) -> float:
    """Of a forward pass over one batch; the second pass is timed, the first is slower than all others."""
    batch = padded(text.pieces.texts[: settings.batch_documents])
    for _ in range(2):
        started = time.perf_counter()
        logits_at(parts, batch, batch.real)[0, 0].item()
        seconds = time.perf_counter() - started
    return seconds / batch.ids.numel()


def _parameters(parts: Parts) -> int:
    return sum(p.numel() for p in parts.model.parameters())


def _trained(parts: Parts, settings: UnlearnSettings) -> int:
    """Of a LoRA, a bound: rank times the two sides of every matrix of the blocks."""
    if settings.lora_rank is None:
        return _parameters(parts)
    return sum(settings.lora_rank * sum(p.shape) for p in parts.blocks.parameters() if p.ndim == 2)
