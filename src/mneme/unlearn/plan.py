"""What a run will cost, said before it starts."""

from mneme.models.architecture import Parts
from mneme.models.footprint import likelihood_footprint, resident_bytes
from mneme.options import counted
from mneme.unlearn.job import TextSet, measured
from mneme.unlearn.objective import needs_frozen
from mneme.unlearn.relearning import BATCH_DOCUMENTS, STEPS
from mneme.unlearn.settings import UnlearnSettings


def disk_bytes(parts: Parts, settings: UnlearnSettings) -> int:
    """What the run writes: the result, and a checkpoint of weights and both moments of Adam."""
    every = _parameters(parts)
    trained = _trained(parts, settings)
    return 4 * (3 * trained + (trained if settings.lora_rank else every)) + 16_000_000


def say_plan(parts: Parts, settings: UnlearnSettings, forget: TextSet, retain: TextSet, relearn_documents: int) -> str:
    """One sentence: steps, tokens, seconds and memory (from a small piece of the training, here and now), disk."""
    resident = resident_bytes()  # before the probe, whose memory the training will use again
    own = likelihood_footprint(parts, forget.pieces.texts, parts.model.parameters())
    if settings.lora_rank:  # no gradient of a weight matrix is made then
        step = likelihood_footprint(parts, forget.pieces.texts, parts.embedding.parameters()).step_seconds
        own = own._replace(step_seconds=step)
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
    peak = resident + 4 * (3 * _trained(parts, settings) + copy + logits) + together * own.saved_bytes
    return (
        f"Plan: {counted(settings.steps, 'step')} of {settings.method} on "
        f"{counted(settings.batch_documents, 'text')} of either set, "
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


def _parameters(parts: Parts) -> int:
    return sum(p.numel() for p in parts.model.parameters())


def _trained(parts: Parts, settings: UnlearnSettings) -> int:
    """Of a LoRA, a bound: rank times the two sides of every matrix of the blocks."""
    if settings.lora_rank is None:
        return _parameters(parts)
    return sum(settings.lora_rank * sum(p.shape) for p in parts.blocks.parameters() if p.ndim == 2)
