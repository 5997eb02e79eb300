"""`guard(SFTTrainer, [kl_tuned_to_base(0.1)])`: a TRL trainer whose loss also counts penalties. Needs no import of TRL.

TRL fuses the head into the loss, so that `return_outputs=True` gives logits without a gradient and a penalty on them does
nothing. Here the residual streams are taken by hooks from TRL's own forward pass, with their gradient, and only the base's
pass is added; a penalty that has no gradient is an error. The reference is the same model with its adapter off; under full
fine-tuning a frozen copy. Gradient accumulation: a penalty on the training batch is divided by the number of learned tokens
of the whole step, as the loss is; one on probes is added once a step.
"""

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Trainer

from mneme.errors import BadOption
from mneme.models.adapters import adapter_off, inner_model
from mneme.models.architecture import Parts, find_parts, lens
from mneme.models.batching import Batch, padded, predicting, run_blocks
from mneme.models.hooks import check_layers, read, stop_after
from mneme.models.modes import evaluating
from mneme.text.chat import trained_on
from mneme.text.rows import encode_rows
from mneme.train.divergence import Softmaxed
from mneme.train.learned import ChunkTerm
from mneme.train.penalties import Heads, Penalty, Probes, Residuals
from mneme.train.protecting import ProtectUpdates, protected_weights

_NOT_FOR_THE_MODEL = ("labels", "shift_labels", "num_items_in_batch")


def guard(
    trainer_class: type[Trainer],
    penalties: Sequence[Penalty] = (),
    *,
    protect: Float[Tensor, "direction d_model"] | None = None,
) -> type[Trainer]:
    """A subclass of a TRL trainer (SFTTrainer and what derives from it) with `penalties` in its loss.

    `protect`: directions of the residual stream that no update may write to (see `train/protecting.py`). Built like the
    class it came from, with the model as an object. A penalty of weight 0 is not computed: the run is the plain run. Each
    penalty is logged as `penalty/NAME`, unweighted. Penalties leave evaluation alone.

    Raises BadOption for penalties of one name, a layer that does not exist, and in training for a penalty without gradient.
    """
    counted = tuple(penalty for penalty in penalties if penalty.weight > 0)
    _check_names(counted)

    class Guarded(trainer_class):  # type: ignore[misc]
        """The trainer with penalties in its loss."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            model = self.accelerator.unwrap_model(self.model)
            self._watch = _Watch(model, counted, self.processing_class) if counted else None
            if protect is not None:
                self.add_callback(ProtectUpdates(protected_weights(inner_model(model), protect)))

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            """The trainer's own loss, and in training the penalties."""
            if self._watch is None or not self.model.training:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            lean = not return_outputs and getattr(self, "is_lean", _never)(inputs)
            unread = (*_NOT_FOR_THE_MODEL, "attention_mask") if lean else _NOT_FOR_THE_MODEL
            forward = {name: value for name, value in inputs.items() if name not in unread}
            batch = self._watch.batch(self, forward, trained_on(inputs["labels"]), num_items_in_batch)
            if lean:
                self.with_logits = batch.with_logits()
            try:
                with read(self._watch.parts, self._watch.batch_layers) as tuned:
                    result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            finally:
                self.with_logits = None  # of this batch alone, and never of an evaluation
            loss, *rest = result if return_outputs else (result,)
            for term in batch.terms(tuned):
                loss = loss + term
            return (loss, *rest) if return_outputs else loss

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            """The trainer's log with the mean of every penalty since the last one."""
            if self._watch is not None and "loss" in logs:
                logs.update(self._watch.logged())
            super().log(logs, *args, **kwargs)

    Guarded.__name__ = f"Guarded{trainer_class.__name__}"
    return Guarded


class _Watch:
    """What the penalties read: the parts of the tuned model, the frozen reference, the probe batches."""

    def __init__(self, model: nn.Module, penalties: Sequence[Penalty], tokenizer: PreTrainedTokenizerBase | None) -> None:
        self.model = model
        with evaluating(model):
            self.parts = find_parts(inner_model(model))
        self.on_training = [(p, p.layers(len(self.parts.blocks))) for p in penalties if p.probes is None]
        for _, layers in self.on_training:
            check_layers(self.parts, layers)
        self.batch_layers = sorted({layer for _, layers in self.on_training for layer in layers})
        self.frozen = _frozen(model, self.parts, whole=bool(self.on_training))
        self.heads = _heads(model, self.parts, self.frozen)
        self.probing = [_Probing(p, self.heads, self.parts, model, tokenizer) for p in penalties if p.probes is not None]
        self.seen: dict[str, tuple[float, int]] = {}
        self.probed_at = -1

    def batch(
        self, trainer: Any, forward: dict[str, Any], learned: Bool[Tensor, "batch seq"], step_tokens: Tensor | int | None
    ) -> "_BatchPenalties":
        """What the penalties say to one batch. `step_tokens`: learned tokens of the optimizer step, all batches and devices;
        None where the trainer will divide the loss by the number of batches itself."""
        return _BatchPenalties(self, trainer, forward, learned, step_tokens)

    def logged(self) -> dict[str, float]:
        """Mean of every penalty over the tokens (on probes: the steps) since the last call, unweighted."""
        means = {f"penalty/{name}": total / max(1, count) for name, (total, count) in self.seen.items()}
        self.seen.clear()
        return means

    def note(self, penalty: Penalty, total: Tensor, count: int) -> None:
        """`count` more tokens, and the penalty's sum over them."""
        before = self.seen.get(penalty.name, (0.0, 0))
        self.seen[penalty.name] = before[0] + float(total.detach()), before[1] + count

    def on_probes(self, step: int) -> Iterator[tuple[Penalty, Tensor]]:
        """(penalty, mean over the learned tokens of its probe batch of this step) of every penalty with probes."""
        for probing in self.probing:
            yield probing.penalty, probing.mean(step)


class _BatchPenalties:
    """The penalties on one batch of the training with the base's residual streams there, and those on probes in their turn."""

    def __init__(
        self,
        watch: _Watch,
        trainer: Any,
        forward: dict[str, Any],
        learned: Bool[Tensor, "batch seq"],
        step_tokens: Tensor | int | None,
    ) -> None:
        self.watch, self.trainer, self.step_tokens = watch, trainer, step_tokens
        self.predicts = predicting(learned)
        self.count = max(1, int(self.predicts.sum()))
        devices = trainer.args.average_tokens_across_devices and step_tokens is not None
        self.scale = (float(trainer.accelerator.num_processes) if devices else 1.0) / (step_tokens or self.count)
        self.base: Residuals = {}
        if watch.on_training:
            self.base = reference_residuals(watch.model, watch.frozen, forward, watch.batch_layers, self.predicts)
        self.shared: list[Penalty] = []

    def with_logits(self) -> ChunkTerm | None:
        """The penalties on the batch that depend on logits alone, as a term of the loss of a chunk of its tokens, whose
        softmax they share; `terms` leaves them out then."""
        last = len(self.watch.parts.blocks) - 1
        self.shared = [penalty for penalty, layers in self.watch.on_training if penalty.sloped and layers == (last,)]
        if not self.shared:
            return None

        def term(tuned: Softmaxed, cut: slice) -> tuple[Tensor, Tensor]:
            base = self.watch.heads.base(self.base[last][cut])
            parts = []
            for penalty in self.shared:
                assert penalty.sloped is not None
                values, slope = penalty.sloped(tuned, base)
                total, weight = values.sum(), penalty.weight * self.scale
                self.watch.note(penalty, total, len(values))
                parts.append((weight * total, slope.mul_(weight)))
            loss, slope = parts[0]
            for more, further in parts[1:]:
                loss, slope = loss + more, slope.add_(further)
            return loss, slope

        return term

    def terms(self, found: dict[int, Tensor]) -> Iterator[Tensor]:
        """What to add to the loss of the batch, weighted; `found`: the tuned model's residual streams."""
        watch = self.watch
        for penalty, layers in watch.on_training:
            if penalty in self.shared:
                continue
            tuned = {layer: _with_gradient(found[layer][self.predicts], layer) for layer in layers}
            total = penalty.per_token(watch.heads, tuned, {layer: self.base[layer] for layer in layers}).sum()
            watch.note(penalty, total, int(self.predicts.sum()))
            yield penalty.weight * self.scale * total
        step = self.trainer.state.global_step
        if watch.probed_at == step:
            return
        watch.probed_at = step
        batches = self.trainer.current_gradient_accumulation_steps if self.step_tokens is None else 1
        for penalty, mean in watch.on_probes(step):
            watch.note(penalty, mean, 1)
            yield penalty.weight * batches * mean


class _Probing:
    """One penalty on probe rows: fixed batches, taken in turn, and what the base says to each."""

    def __init__(
        self, penalty: Penalty, heads: Heads, parts: Parts, model: nn.Module, tokenizer: PreTrainedTokenizerBase | None
    ) -> None:
        if penalty.probes is None or tokenizer is None:
            raise BadOption(f"{penalty.name} on probes needs rows and the trainer's tokenizer (processing_class).")
        self.penalty, self.heads, self.parts, self.model = penalty, heads, parts, model
        self.layers = penalty.layers(len(parts.blocks))
        check_layers(parts, self.layers)
        self.batches = list(_probe_batches(penalty.probes, tokenizer))
        self.base: dict[int, Residuals] = {}
        if not hasattr(model, "disable_adapter"):  # the only time that the model still is the base
            for index in range(len(self.batches)):
                self._reference(index)

    def mean(self, step: int) -> Float[Tensor, ""]:
        """Mean over the learned tokens of the batch of optimizer step `step`, in eval mode: what will be deployed."""
        index = step % len(self.batches)
        batch, base = self.batches[index], self._reference(index)
        with evaluating(self.model), read(self.parts, self.layers) as found, stop_after(self.parts, max(self.layers)):
            run_blocks(self.parts, batch)
        places = batch.predicting().to(self.parts.device)
        tuned = {layer: _with_gradient(found[layer][places], layer) for layer in self.layers}
        return self.penalty.per_token(self.heads, tuned, base).mean()

    def _reference(self, index: int) -> Residuals:
        if index not in self.base:
            ids, places = (
                tensor.to(self.parts.device) for tensor in (self.batches[index].ids, self.batches[index].predicting())
            )
            self.base[index] = reference_residuals(self.model, self.parts, {"input_ids": ids}, self.layers, places)
        return self.base[index]


def _frozen(model: nn.Module, parts: Parts, *, whole: bool) -> Parts:
    """The parts of the base as it will stay. An adapter is switched off, so nothing is copied; under full fine-tuning the
    final norm and the head are, and with `whole` the model, where the base has to read every batch."""
    if hasattr(model, "disable_adapter"):
        return parts
    if not whole:
        return dataclasses.replace(parts, norm=copy.deepcopy(parts.norm), head=copy.deepcopy(parts.head))
    reference = copy.deepcopy(model).eval().requires_grad_(False)
    vars(reference).pop("forward", None)  # TRL's fused forward is bound to the model that is trained
    return find_parts(inner_model(reference))


def _heads(model: nn.Module, parts: Parts, frozen: Parts) -> Heads:
    def base(hidden: Tensor) -> Tensor:
        with torch.no_grad(), adapter_off(model):
            return lens(frozen, hidden)

    return Heads(lambda hidden: lens(parts, hidden), base, int(parts.embedding.weight.shape[0]))  # type: ignore[index]


@torch.no_grad()
def reference_residuals(
    model: nn.Module, frozen: Parts, forward: dict[str, Any], layers: Sequence[int], keep: Bool[Tensor, "batch seq"]
) -> dict[int, Float[Tensor, "token d_model"]]:
    """The base's residual streams at the tokens kept: `frozen` in eval mode, with the adapter of `model` off if it has one."""
    with evaluating(model), adapter_off(model), read(frozen, layers) as found, stop_after(frozen, max(layers)):
        frozen.decoder(**{**forward, "use_cache": False})
    return {layer: found[layer][keep] for layer in layers}


def _probe_batches(probes: Probes, tokenizer: PreTrainedTokenizerBase) -> Iterator[Batch]:
    """Every probe batch, in the order that the seed decides; the rest that does not fill one is dropped."""
    rows = list(probes.rows)
    if not rows or probes.batch_rows < 1:
        raise BadOption("a penalty on probes needs at least one probe row and one row a batch.")
    encoded = encode_rows(rows, tokenizer, probes.max_length, "the probe rows")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(probes.seed)).tolist()
    size = min(probes.batch_rows, len(rows))
    for first in range(0, len(rows) - size + 1, size):
        yield padded([encoded[i] for i in order[first : first + size]], pad_id=tokenizer.pad_token_id or 0)


def _with_gradient(hidden: Tensor, layer: int) -> Tensor:
    if torch.is_grad_enabled() and not hidden.requires_grad:
        raise BadOption(
            f"the residual stream after block {layer} has no gradient, so a penalty on it would do nothing. Turn label "
            "smoothing off, and whatever else computes the loss of this trainer in a second forward pass."
        )
    return hidden


def _never(_inputs: dict[str, Any]) -> bool:
    return False


def _check_names(penalties: Sequence[Penalty]) -> None:
    names = [penalty.name for penalty in penalties]
    for name in names:
        if names.count(name) > 1:
            raise BadOption(f"two penalties are called {name}. Give each once, with one weight.")
