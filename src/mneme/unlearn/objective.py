"""The two losses of one step, forget and retain, for every method: from batches and models to numbers to be minimised."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mneme.models.architecture import Parts
from mneme.models.hooks import read, stop_after
from mneme.unlearn import losses
from mneme.unlearn.settings import Settings
from mneme.unlearn.text import Pieces, batch_at, next_token_nll, padded, run_logits

_RETAIN_SEED = 1
_REFERENCE_PIECES = 16

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
        with torch.no_grad():
            if self.adapter is None:
                yield self.parts
            else:
                with self.adapter.disable_adapter():
                    yield self.parts


@dataclass(frozen=True)
class Term:
    """One loss of a run: a function of the step alone, given the weights of the model at that moment."""

    name: str
    weight: float
    loss_at: StepLoss


def needs_frozen(settings: Settings) -> bool:
    """Whether the method asks the frozen model while it trains."""
    return settings.method in ("rmu", "undial") or (settings.retain_loss == "kl" and settings.retain_weight > 0)


def freeze(parts: Parts, adapter: Any, settings: Settings) -> Frozen | None:
    """The frozen model, where the method needs it: free with an adapter, else a copy of the model."""
    if not needs_frozen(settings):
        return None
    if adapter is not None:
        return Frozen(parts, adapter)
    twin = copy.deepcopy(parts)  # the whole at once, so that the copied parts are those of the copied model
    twin.model.requires_grad_(False)
    return Frozen(twin)


def objective(settings: Settings, parts: Parts, frozen: Frozen | None, forget: Pieces, retain: Pieces) -> tuple[Term, Term]:
    """(forget, retain) of `settings.method`. Call before the first step: references are read from the model as it is now."""
    if settings.method == "rmu":
        forget_at, retain_at = _misdirection(settings, parts, _given(frozen), forget, retain)
    else:
        forget_at = _forget_loss(settings, parts, frozen, forget)
        retain_at = _retain_loss(settings, parts, frozen, retain)
    return Term("forget", settings.forget_weight, forget_at), Term("retain", settings.retain_weight, retain_at)


def plain_loss(parts: Parts, texts: Pieces, batch_documents: int, seed: int) -> StepLoss:
    """The ordinary loss on `texts`: what relearning minimises."""

    def at(step: int) -> Float[Tensor, ""]:
        ids, is_text = padded(texts, batch_at(len(texts), batch_documents, step, seed), parts.device)
        return losses.likelihood_loss(next_token_nll(run_logits(parts, ids, is_text), ids), is_text[:, 1:])

    return at


def _forget_loss(settings: Settings, parts: Parts, frozen: Frozen | None, forget: Pieces) -> StepLoss:
    reference = reference_nll(parts, forget) if settings.method == "npo" else torch.zeros(0)

    def at(step: int) -> Float[Tensor, ""]:
        which = batch_at(len(forget), settings.batch_documents, step, settings.seed)
        ids, is_text = padded(forget, which, parts.device)
        logits = run_logits(parts, ids, is_text)
        target = is_text[:, 1:]
        if settings.method == "undial":
            with _given(frozen).using() as base:
                base_logits = run_logits(base, ids, is_text)
            return losses.undial_loss(logits[:, :-1][target], base_logits[:, :-1][target], ids[:, 1:][target], settings.beta)
        nll = next_token_nll(logits, ids)
        if settings.method in ("grad-ascent", "grad-diff"):
            return losses.ascent_loss(nll, target)
        total, count = losses.document_nll(nll, target)
        if settings.method == "npo":
            return losses.npo_loss(total, reference[torch.from_numpy(which)].to(total), settings.beta)
        return losses.simnpo_loss(total / count, settings.beta)

    return at


def _retain_loss(settings: Settings, parts: Parts, frozen: Frozen | None, retain: Pieces) -> StepLoss:
    if settings.retain_loss == "nll" or settings.retain_weight == 0:
        return plain_loss(parts, retain, settings.batch_documents, settings.seed + _RETAIN_SEED)

    def at(step: int) -> Float[Tensor, ""]:
        which = batch_at(len(retain), settings.batch_documents, step, settings.seed + _RETAIN_SEED)
        ids, is_text = padded(retain, which, parts.device)
        with _given(frozen).using() as base:
            base_logits = run_logits(base, ids, is_text)
        return losses.divergence_loss(run_logits(parts, ids, is_text), base_logits, is_text)

    return at


@torch.no_grad()
def reference_nll(parts: Parts, pieces: Pieces) -> Float[Tensor, " piece"]:
    """Nats of every piece (sum over its tokens) under the model as it is."""
    sums = []
    for start in range(0, len(pieces), _REFERENCE_PIECES):
        ids, is_text = padded(pieces, range(start, min(start + _REFERENCE_PIECES, len(pieces))), parts.device)
        total, _ = losses.document_nll(next_token_nll(run_logits(parts, ids, is_text), ids), is_text[:, 1:])
        sums.append(total.cpu())
    return torch.cat(sums)


def _misdirection(
    settings: Settings, parts: Parts, frozen: Frozen, forget: Pieces, retain: Pieces
) -> tuple[StepLoss, StepLoss]:
    """RMU: squared distances of residual streams, no logits; the pass ends after the deepest layer."""
    layers = settings.layers
    controls = {
        layer: losses.control_vector(parts.width, layer, settings.beta * length, settings.seed).to(parts.device)
        for layer, length in _stream_lengths(frozen, forget, layers).items()
    }

    def forget_at(step: int) -> Float[Tensor, ""]:
        ids, is_text = padded(forget, batch_at(len(forget), settings.batch_documents, step, settings.seed), parts.device)
        streams = _streams(parts, ids, is_text, layers)
        return torch.stack([losses.misdirection_loss(streams[at], controls[at], is_text) for at in layers]).mean()

    def retain_at(step: int) -> Float[Tensor, ""]:
        which = batch_at(len(retain), settings.batch_documents, step, settings.seed + _RETAIN_SEED)
        ids, is_text = padded(retain, which, parts.device)
        with frozen.using() as base:
            before = _streams(base, ids, is_text, layers)
        now = _streams(parts, ids, is_text, layers)
        return torch.stack([losses.stillness_loss(now[at], before[at], is_text) for at in layers]).mean()

    return forget_at, retain_at


def _stream_lengths(frozen: Frozen, forget: Pieces, layers: tuple[int, ...]) -> dict[int, float]:
    """Mean |h| of the residual stream after each layer, over the tokens of up to 16 pieces but their first (the sink)."""
    which = np.unique(np.linspace(0, len(forget) - 1, min(_REFERENCE_PIECES, len(forget))).astype(int))
    with frozen.using() as base:
        ids, is_text = padded(forget, which, base.device)
        streams = _streams(base, ids, is_text, layers)
    is_text = is_text.clone()
    is_text[:, 0] = False
    return {layer: float(streams[layer].float().norm(dim=-1)[is_text].mean()) for layer in layers}


def _streams(
    parts: Parts, ids: Int[Tensor, "batch seq"], is_text: Bool[Tensor, "batch seq"], layers: tuple[int, ...]
) -> dict[int, Float[Tensor, "batch seq d_model"]]:
    with read(parts, layers) as found, stop_after(parts, max(layers)):
        parts.decoder(input_ids=ids, attention_mask=is_text.long(), use_cache=False)
    return found


def _given(frozen: Frozen | None) -> Frozen:
    if frozen is None:
        raise TypeError("this method asks the frozen model, and none was given")
    return frozen
