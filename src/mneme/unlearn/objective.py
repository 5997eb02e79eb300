"""The two losses of one step, forget and retain, for every method: from batches and models to numbers to be minimised."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from mneme.models.adapters import adapter_off
from mneme.models.architecture import Parts
from mneme.models.batching import Batch, epoch_batch, padded, run_blocks
from mneme.models.fitting import Term
from mneme.models.hooks import read, stop_after
from mneme.models.likelihood import counted_log_probs, counted_logits, logits_at
from mneme.text.pieces import Pieces
from mneme.unlearn import losses
from mneme.unlearn.settings import UnlearnSettings

_RETAIN_SEED = 1
_LENGTH_PIECES = 16

StepLoss = Callable[[int], Float[Tensor, ""]]


@dataclass(frozen=True)
class Frozen:
    """The model as it was: a copy, or the trained model with its adapter switched off."""

    parts: Parts
    adapter: Any = None
    """peft's wrapper, where `parts` are those of the trained model."""

    @contextmanager
    def using(self) -> Iterator[Parts]:
        """Its parts, without gradients."""
        with torch.no_grad(), adapter_off(self.adapter):
            yield self.parts


def needs_frozen(settings: UnlearnSettings) -> bool:
    """Whether the method asks the frozen model while it trains."""
    return settings.method in ("npo", "rmu", "undial") or (settings.retain_loss == "kl" and settings.retain_weight > 0)


def freeze(parts: Parts, adapter: Any, settings: UnlearnSettings) -> Frozen | None:
    """The frozen model, where the method needs it: free with an adapter, else a copy of the model."""
    if not needs_frozen(settings):
        return None
    if adapter is not None:
        return Frozen(parts, adapter)
    twin = copy.deepcopy(parts)  # the whole at once, so that the copied parts are those of the copied model
    twin.model.requires_grad_(False)
    return Frozen(twin)


def objective(
    settings: UnlearnSettings, parts: Parts, frozen: Frozen | None, forget: Pieces, retain: Pieces
) -> tuple[Term, Term]:
    """(forget, retain) of `settings.method`. Call before the first step: rmu reads the model's own lengths."""
    if settings.method == "rmu":
        forget_at, retain_at = _misdirection(settings, parts, _given(frozen), forget, retain)
    else:
        forget_at = _forget_loss(settings, parts, frozen, forget)
        retain_at = _retain_loss(settings, parts, frozen, retain)
    return Term("forget", settings.forget_weight, forget_at), Term("retain", settings.retain_weight, retain_at)


def plain_loss(parts: Parts, texts: Pieces, batch_documents: int, seed: int) -> StepLoss:
    """The ordinary loss on `texts`: what relearning minimises."""

    def at(step: int) -> Float[Tensor, ""]:
        batch = _batch(texts, epoch_batch(len(texts), batch_documents, step, seed))
        return losses.likelihood_loss(_nll(parts, batch), batch.counted.to(parts.device))

    return at


def _forget_loss(settings: UnlearnSettings, parts: Parts, frozen: Frozen | None, forget: Pieces) -> StepLoss:
    def at(step: int) -> Float[Tensor, ""]:
        which = epoch_batch(len(forget), settings.batch_documents, step, settings.seed)
        batch = _batch(forget, which)
        target = batch.counted.to(parts.device)
        if settings.method == "undial":
            with _given(frozen).using() as base:
                base_logits = counted_logits(base, batch)
            ids = batch.ids[batch.counted].to(parts.device)
            return losses.undial_loss(counted_logits(parts, batch), base_logits, ids, settings.beta)
        nll = _nll(parts, batch)
        if settings.method in ("grad-ascent", "grad-diff"):
            return losses.ascent_loss(nll, target)
        total, count = losses.document_nll(nll, target)
        if settings.method == "npo":
            # Read in the same batch at every step: to read all of the text before the first step would take minutes.
            with _given(frozen).using() as base:
                reference, _ = losses.document_nll(_nll(base, batch), target)
            return losses.npo_loss(total, reference, settings.beta)
        return losses.simnpo_loss(total / count, settings.beta)

    return at


def _retain_loss(settings: UnlearnSettings, parts: Parts, frozen: Frozen | None, retain: Pieces) -> StepLoss:
    if settings.retain_loss == "nll" or settings.retain_weight == 0:
        return plain_loss(parts, retain, settings.batch_documents, settings.seed + _RETAIN_SEED)

    def at(step: int) -> Float[Tensor, ""]:
        which = epoch_batch(len(retain), settings.batch_documents, step, settings.seed + _RETAIN_SEED)
        batch = _batch(retain, which)
        with _given(frozen).using() as base:
            base_logits = logits_at(base, batch, batch.real)
        return losses.divergence_loss(logits_at(parts, batch, batch.real), base_logits)

    return at


def _misdirection(
    settings: UnlearnSettings, parts: Parts, frozen: Frozen, forget: Pieces, retain: Pieces
) -> tuple[StepLoss, StepLoss]:
    """RMU: squared distances of residual streams, no logits; the pass ends after the deepest layer."""
    layers = settings.layers
    controls = {
        layer: losses.control_vector(parts.width, layer, settings.beta * length, settings.seed).to(parts.device)
        for layer, length in _stream_lengths(frozen, forget, layers).items()
    }

    def forget_at(step: int) -> Float[Tensor, ""]:
        batch = _batch(forget, epoch_batch(len(forget), settings.batch_documents, step, settings.seed))
        streams, is_text = _streams(parts, batch, layers), batch.real.to(parts.device)
        return torch.stack([losses.misdirection_loss(streams[at], controls[at], is_text) for at in layers]).mean()

    def retain_at(step: int) -> Float[Tensor, ""]:
        which = epoch_batch(len(retain), settings.batch_documents, step, settings.seed + _RETAIN_SEED)
        batch = _batch(retain, which)
        with frozen.using() as base:
            before = _streams(base, batch, layers)
        now, is_text = _streams(parts, batch, layers), batch.real.to(parts.device)
        return torch.stack([losses.stillness_loss(now[at], before[at], is_text) for at in layers]).mean()

    return forget_at, retain_at


def _stream_lengths(frozen: Frozen, forget: Pieces, layers: tuple[int, ...]) -> dict[int, float]:
    """Mean |h| of the residual stream after each layer, over the tokens of up to 16 pieces but their first (the sink)."""
    which = np.unique(np.linspace(0, len(forget) - 1, min(_LENGTH_PIECES, len(forget))).astype(int))
    with frozen.using() as base:
        batch = _batch(forget, which)
        streams = _streams(base, batch, layers)
    counted = batch.counted.to(base.device)
    return {layer: float(streams[layer].float().norm(dim=-1)[counted].mean()) for layer in layers}


def _streams(parts: Parts, batch: Batch, layers: tuple[int, ...]) -> dict[int, Float[Tensor, "batch seq d_model"]]:
    with read(parts, layers) as found, stop_after(parts, max(layers)):
        run_blocks(parts, batch)
    return found


def _batch(pieces: Pieces, which: Int[ndarray, " batch"]) -> Batch:
    return padded([pieces.texts[int(i)] for i in which])


def _nll(parts: Parts, batch: Batch) -> Float[Tensor, "batch seq"]:
    """Nats of every token but the first, where it stands in the batch."""
    return -batch.spread(counted_log_probs(parts, batch))


def _given(frozen: Frozen | None) -> Frozen:
    if frozen is None:
        raise TypeError("this method asks the frozen model, and none was given")
    return frozen
