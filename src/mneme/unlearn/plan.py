"""What a run will cost, said before it starts."""

from mneme.models.architecture import Parts
from mneme.models.batching import padded
from mneme.models.footprint import Footprint, footprint, resident_bytes
from mneme.models.likelihood import counted_log_probs
from mneme.unlearn.job import TextSet, measured
from mneme.unlearn.objective import needs_frozen
from mneme.unlearn.relearning import BATCH_DOCUMENTS, STEPS
from mneme.unlearn.settings import UnlearnSettings

_PROBE_TEXTS, _PROBE_TOKENS = 8, 256
"""So many texts at most are timed, and tokens, if one text is no longer: enough to be busy with products."""


def disk_bytes(parts: Parts, settings: UnlearnSettings) -> int:
    """What the run writes: the result, and a checkpoint of weights and both moments of Adam."""
    every = _parameters(parts)
    trained = _trained(parts, settings)
    return 4 * (3 * trained + (trained if settings.lora_rank else every)) + 16_000_000


def say_plan(parts: Parts, settings: UnlearnSettings, forget: TextSet, retain: TextSet, relearn_documents: int) -> str:
    """One sentence: steps, tokens, seconds and memory (from a small piece of the training, here and now), disk."""
    own = _footprint(parts, forget)
    sizes = [text.pieces.tokens / len(text.pieces) for text in (forget, retain)]
    both = settings.retain_weight > 0
    step_tokens = settings.batch_documents * (sizes[0] + (sizes[1] if both else 0))
    trained = settings.steps * step_tokens
    frozen = settings.steps * settings.batch_documents * _frozen_texts(settings, sizes)
    if relearn_documents:
        trained += 2 * STEPS * min(BATCH_DOCUMENTS, relearn_documents) * sum(sizes) / 2
    read = 2 * sum(measured(text.pieces, settings.seed).tokens for text in (forget, retain))
    seconds = trained * own.step_seconds + (frozen + read) * own.forward_seconds
    longest = max(len(piece.ids) for text in (forget, retain) for piece in text.pieces.texts)
    together = settings.batch_documents * longest
    vocabulary = int(parts.model.config.get_text_config().vocab_size)
    logits = _logits_at_once(settings, together, vocabulary)
    copy = _parameters(parts) if needs_frozen(settings) and not settings.lora_rank else 0
    peak = resident_bytes() + 4 * (3 * _trained(parts, settings) + copy + logits) + together * own.saved_bytes
    return (
        f"Plan: {settings.steps} steps of {settings.method} on {settings.batch_documents} texts of either set, "
        f"{settings.steps * step_tokens:,.0f} tokens, about {seconds:,.0f} s here, "
        f"peak memory about {peak / 1e9:.1f} GB, disk about {disk_bytes(parts, settings) / 1e6:.0f} MB."
    )


def _frozen_texts(settings: UnlearnSettings, sizes: list[float]) -> float:
    """Tokens that the frozen model reads for every text of a batch."""
    forget = sizes[0] if settings.method in ("npo", "undial") else 0.0
    held = settings.method == "rmu" or settings.retain_loss == "kl"
    return forget + (sizes[1] if held and settings.retain_weight > 0 else 0.0)


def _logits_at_once(settings: UnlearnSettings, tokens: int, vocabulary: int) -> int:
    """Logits and their like that exist together: of a chunk, but of a batch in both models where a loss compares them."""
    whole = settings.method == "undial" or (settings.retain_loss == "kl" and settings.retain_weight > 0)
    return 5 * tokens * vocabulary if whole else 4 * 2**24


def _footprint(parts: Parts, text: TextSet) -> Footprint:
    """Of the ordinary loss on a few texts."""
    chosen = list(text.pieces.texts[:_PROBE_TEXTS])
    while len(chosen) > 1 and sum(len(piece.ids) for piece in chosen) > _PROBE_TOKENS:
        chosen.pop()
    batch = padded(chosen)
    required = {weight: weight.requires_grad for weight in parts.model.parameters()}
    parts.model.requires_grad_(True)
    try:
        return footprint(lambda: -counted_log_probs(parts, batch).mean(), batch.ids.numel(), required)
    finally:
        for weight, on in required.items():
            weight.requires_grad_(on)


def _parameters(parts: Parts) -> int:
    return sum(p.numel() for p in parts.model.parameters())


def _trained(parts: Parts, settings: UnlearnSettings) -> int:
    """Of a LoRA, a bound: rank times the two sides of every matrix of the blocks."""
    if settings.lora_rank is None:
        return _parameters(parts)
    return sum(settings.lora_rank * sum(p.shape) for p in parts.blocks.parameters() if p.ndim == 2)
