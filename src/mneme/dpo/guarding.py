"""`guard_dpo(DPOTrainer, sft=1.0)`: TRL's DPO trainer with what prevents displacement in its loss. Needs no import of TRL.

TRL gives the per-token log-probabilities of chosen and rejected answers only inside its loss; a forward hook takes them from
its own pass, with their gradient, so that nothing runs twice. The additions are means over pairs, as TRL's loss is, so that
gradient accumulation and padding do not change them. Formulas and papers: `dpo/losses.py`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from mneme.dpo.band import watch_pairs
from mneme.dpo.losses import calibration_factor, dpop_loss
from mneme.errors import BadOption
from mneme.models.logits import token_log_probs
from mneme.models.preference import dpo_loss
from mneme.text.files import Row
from mneme.text.pairs import EncodedPair


def guard_dpo(
    trainer_class: type[Trainer], *, sft: float = 0.0, dpop: float = 0.0, calibrate: Sequence[Row] = ()
) -> type[Trainer]:
    """A subclass of TRL's DPOTrainer with fixes in its loss; built like it, with `precompute_ref_log_probs=True` for `dpop`.

    `sft`: weight of the chosen answer's mean negative log-likelihood per token, which is the quantity of Pang et al. 2024,
    equation 1 (they take 1). The 0.01 to 1 of Razin et al. 2025 is on the sum over the answer: w there is w times the answer's
    length in tokens here (0.01 of 100 tokens is 1). `dpop`: weight of the fall of the chosen answer below the reference, nats
    per answer, as in Pal et al. 2024, equation 3. `calibrate`: a few fixed pairs; before
    every optimizer step their gradients say by which factor the chosen answers' gradients are made larger and the rejected
    ones' smaller (reward calibration). The paper takes the training batch and a moving average; fixed pairs make the factor a
    function of the weights alone, so that accumulation and a resume do not change it. Costs two backward passes on them.

    Law: zero strength (with none of the three it is TRL's trainer, step by step). Raises BadOption for a negative weight,
    another loss than "sigmoid", or reference log-probabilities that are not precomputed.
    """
    if sft < 0 or dpop < 0:
        raise BadOption("the weights of sft and dpop cannot be negative. Give 0 to leave one out.")

    class GuardedDPO(trainer_class):  # type: ignore[misc]
        """The trainer with the fixes in its loss."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._fixes = _Fixes(self, sft, dpop, calibrate)

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            """TRL's, but for pairs that are ids already (`given_to_trl`)."""
            ready = "prompt_ids" in (dataset.column_names or ())
            return dataset if ready else super()._prepare_dataset(dataset, *args, **kwargs)

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            """The trainer's own loss, and in training the fixes."""
            if not (sft or dpop or calibrate) or not self.model.training:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            factor = self._fixes.factor(self.state.global_step)
            with _captured(model) as seen:
                result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            loss, *rest = result if return_outputs else (result,)
            told, log_probs = _log_probs(seen, inputs)
            _scale_gradient(told, factor)
            loss = loss + self._fixes.terms(log_probs, inputs)
            return (loss, *rest) if return_outputs else loss

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            """The trainer's log with the means of what was added since the last one."""
            if "loss" in logs:
                logs.update(self._fixes.read())
            super().log(logs, *args, **kwargs)

    GuardedDPO.__name__ = f"Guarded{trainer_class.__name__}"
    return GuardedDPO


def given_to_trl(pair: EncodedPair) -> dict[str, list[int]]:
    """A pair as TRL's collator takes it: the ids that were checked and scored are those that are trained on."""
    return {"prompt_ids": list(pair.prompt), "chosen_ids": list(pair.chosen), "rejected_ids": list(pair.rejected)}


class _Fixes:
    """The fixes of one trainer, and what they came to since the last log."""

    def __init__(self, trainer: Any, sft: float, dpop: float, calibrate: Sequence[Row]) -> None:
        if (dpop or calibrate) and list(trainer.loss_types) != ["sigmoid"]:
            raise BadOption(f"dpop and calibration are fixes of the loss 'sigmoid', not of {trainer.loss_types}.")
        if dpop and not trainer.precompute_ref_logps:
            raise BadOption("dpop compares with the reference: set precompute_ref_log_probs=True in the DPOConfig.")
        self.beta, self.sft, self.dpop = float(trainer.beta), sft, dpop
        self.watched = watch_pairs(trainer.model, trainer.processing_class, calibrate) if calibrate else None
        self.of_step = (-1, 1.0)
        self.values: dict[str, list[float]] = {}

    def factor(self, step: int) -> float:
        """By what the chosen answers' gradients are multiplied in this optimizer step; 1 without calibration."""
        if self.watched is not None and self.of_step[0] != step:
            band = self.watched.test(self.beta, self.sft, self.dpop)
            self.of_step = step, calibration_factor(band.log_ratio, band.log_optimum)
            self._note("calibration/factor", self.of_step[1])
        return self.of_step[1]

    def terms(self, log_probs: Tensor, inputs: dict[str, Any]) -> Tensor:
        """What is added to the mean loss of this batch."""
        learned = inputs["completion_mask"][:, 1:].bool()
        chosen, rejected = (log_probs * learned).sum(1).chunk(2)
        added = torch.zeros((), device=log_probs.device)
        if self.sft:
            term = -(chosen / learned.sum(1).chunk(2)[0]).mean()
            self._note("fix/sft", float(term.detach()))
            added = added + self.sft * term
        if self.dpop:
            ratios = chosen - inputs["ref_chosen_logps"], rejected - inputs["ref_rejected_logps"]
            more = (dpop_loss(*ratios, self.beta, self.dpop) - dpo_loss(*ratios, self.beta)).mean()
            self._note("fix/dpop", float(more.detach()))
            added = added + more
        return added

    def read(self) -> dict[str, float]:
        """Means since the last call."""
        means = {name: sum(values) / len(values) for name, values in self.values.items()}
        self.values.clear()
        return means

    def _note(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)


@contextmanager
def _captured(model: Any) -> Iterator[list[Any]]:
    """What `model` returns with a gradient while the `with` runs: the policy's own pass, not the reference's."""
    seen: list[Any] = []

    def hook(_module: object, _args: object, output: Any) -> None:
        told = _told(output)
        if told is not None and told.requires_grad:
            seen.append(told)

    handle = model.register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def _told(output: Any) -> Tensor | None:
    """Per-token log-probabilities (TRL from 1.16 on, whose head is fused), or logits (before)."""
    log_probs = getattr(output, "log_probs", None)
    found = log_probs if log_probs is not None else getattr(output, "logits", None)
    return found if isinstance(found, Tensor) else None


def _log_probs(seen: list[Tensor], inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(what the model told, log p of every token but the first [batch seq-1])."""
    if len(seen) != 1:
        raise BadOption(
            f"the trainer ran the model {len(seen)} times with a gradient in one loss, expected once. "
            "Turn reentrant gradient checkpointing off, or use a TRL from 1.9 on."
        )
    ids = inputs["input_ids"][:, 1:]
    told = seen[0]
    if told.ndim == 2:
        return told, told[:, -ids.shape[1] :]
    return told, token_log_probs(told[:, -ids.shape[1] - 1 : -1], ids)


def _scale_gradient(told: Tensor, factor: float) -> None:
    """Backward, chosen rows count `factor` times and rejected ones 1/`factor` times; forward, nothing changes."""
    scale = torch.full((len(told), *[1] * (told.ndim - 1)), 1 / factor, device=told.device, dtype=told.dtype)
    scale[: len(told) // 2] = factor
    told.register_hook(lambda gradient: gradient * scale)  # type: ignore[no-untyped-call]
