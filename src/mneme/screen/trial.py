"""What filtering buys, measured: three short LoRA trainings of equal length, on all rows, on the kept ones, on a random draw.

Ours. A ranking says which rows look harmful; whether dropping them changes what training does is another question, answered
here on examples that no score has seen. The random draw is the control: fewer rows alone may do less.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from mneme.models.adapters import attach_lora, detach_lora
from mneme.models.architecture import Parts
from mneme.models.batching import padded
from mneme.models.fitting import Schedule, Term, constant, fit
from mneme.models.kept_readings import scored_in_run
from mneme.models.likelihood import counted_log_probs, row_log_probs, text_log_likelihoods
from mneme.models.modes import evaluating
from mneme.models.preference import dpo_loss
from mneme.results import Estimate
from mneme.results.screen import FilterValue, TrialArm
from mneme.runs import Arrays, RunFolder
from mneme.stats import bootstrap_weights, expanded_interval
from mneme.text.encoded import Encoded, counted_tokens
from mneme.text.pairs import EncodedPair, answers_of

TRIAL_RANK = 8
_RESAMPLES = 2000

Loss = Callable[[list[int]], Tensor]
"""Indices of a batch -> its loss."""


@contextmanager
def trained(
    parts: Parts,
    loss_of: Loss,
    rows: Sequence[int],
    *,
    steps: int,
    batch_rows: int,
    learning_rate: float,
    seed: int,
    checkpoint: Path | None = None,
) -> Iterator[None]:
    """The model with a LoRA adapter of rank 8 on all its linear maps, trained for `steps` on `rows`; taken off at the end.

    AdamW at a constant rate, gradients clipped to norm 1; rows are shuffled anew each time they are used up. Determinism:
    equal arguments give equal weights.
    """
    drawn = _drawn(rows, steps, batch_rows, seed)
    with evaluating(parts.model, frozen=True):
        adapted = attach_lora(parts.model, TRIAL_RANK, seed=seed)
        trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
        try:
            term = Term("trial", 1.0, lambda step: loss_of(drawn[step]))
            fit([term], trained, Schedule(steps, learning_rate, constant), checkpoint)
            yield
        finally:
            detach_lora(adapted)


def row_loss(parts: Parts, rows: Sequence[Encoded]) -> Loss:
    """Mean negative log-likelihood per learned token of a batch."""

    def loss_of(batch: list[int]) -> Tensor:
        told: Tensor = counted_log_probs(parts, padded([rows[i] for i in batch]))
        return -told.mean()

    return loss_of


def pair_loss(
    parts: Parts,
    chosen: Sequence[Encoded],
    rejected: Sequence[Encoded],
    chosen_before: Float[ndarray, " pair"],
    rejected_before: Float[ndarray, " pair"],
    beta: float,
) -> Loss:
    """The DPO loss of a batch; `*_before` are log-probabilities under the untrained model."""

    def loss_of(batch: list[int]) -> Tensor:
        both = padded([chosen[i] for i in batch] + [rejected[i] for i in batch])
        now_chosen, now_rejected = row_log_probs(parts, both).chunk(2)
        before = [torch.from_numpy(side[batch]).to(now_chosen) for side in (chosen_before, rejected_before)]
        return dpo_loss(now_chosen - before[0], now_rejected - before[1], beta).mean()

    return loss_of


def shift_estimates(
    shifts: Sequence[tuple[Float[ndarray, " unwanted"], Float[ndarray, " wanted"]]], unit: str, seed: int
) -> tuple[list[Estimate], list[Estimate | None]]:
    """(shift of each arm, share of the first arm's shift that each other arm avoids), 95 % bootstrap intervals over examples.

    An arm's shift is mean(unwanted) - mean(wanted), the second left out where it is empty. All arms are resampled together.
    A share is None where the first arm's own interval touches 0: there is nothing to avoid.
    """
    resampled, values = [], []
    for unwanted, wanted in shifts:
        mean = bootstrap_weights(len(unwanted), _RESAMPLES, seed) @ unwanted / len(unwanted)
        value = unwanted.mean()
        if len(wanted):
            mean = mean - bootstrap_weights(len(wanted), _RESAMPLES, seed + 1) @ wanted / len(wanted)
            value = value - wanted.mean()
        resampled.append(mean)
        values.append(float(value))
    # The smaller set has most of the noise, and by the two together 5 of either covered .90 (docs/log.md).
    n = min(len(one) for one in shifts[0] if len(one))
    arms = [_estimate(value, sample, unit, n) for value, sample in zip(values, resampled, strict=True)]
    if arms[0].low <= 0:
        return arms, [None] * (len(arms) - 1)
    shares = [
        _estimate(1 - value / values[0], 1 - sample / resampled[0], "share", n)
        for value, sample in zip(values[1:], resampled[1:], strict=True)
    ]
    return arms, list(shares)


def _estimate(value: float, sample: Float[ndarray, " resample"], unit: str, n: int) -> Estimate:
    low, high = expanded_interval(sample, value, n)
    return Estimate(value=value, low=low, high=high, unit=unit, n=n)


def _drawn(rows: Sequence[int], steps: int, batch_rows: int, seed: int) -> list[list[int]]:
    """The rows of every step: all of them in a random order, then all in another, until there are enough."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < steps * batch_rows:
        order += [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
    return [order[step * batch_rows : (step + 1) * batch_rows] for step in range(steps)]


@dataclass(frozen=True)
class Trial:
    """How long the trial trainings are; the same for every arm."""

    steps: int
    learning_rate: float
    seed: int
    batch_rows: ClassVar[int] = 16
    beta: ClassVar[float] = 0.1

    def arms(self, rows: Sequence[int], kept: Collection[int]) -> dict[str, list[int]]:
        """The rows of each arm: all of `rows`, those that were kept, as many at random."""
        stay = [i for i in rows if i in kept]
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed + 1)).tolist()
        return {"all": list(rows), "kept": stay, "random": sorted(rows[i] for i in order[: len(stay)])}

    def trainer(
        self, parts: Parts, loss_of: Loss, rows: Sequence[int], run: RunFolder, arm: str
    ) -> Callable[[], AbstractContextManager[None]]:
        """What gives the model trained on `rows` for the steps of this trial, its state kept by the run."""
        return lambda: trained(
            parts,
            loss_of,
            rows,
            steps=self.steps,
            batch_rows=self.batch_rows,
            learning_rate=self.learning_rate,
            seed=self.seed,
            checkpoint=run.workspace("trial-training") / f"{arm}.safetensors",
        )

    def value(self, measured: Arrays, *, pairs: bool) -> FilterValue:
        """What the arrays of `row_trial` or `pair_trial` say."""
        unit = "nats per answer" if pairs else "nats per token"
        measure = (
            "fall of the log-probability of the chosen answers of held-out pairs, nats per answer"
            if pairs
            else "rise of the log-likelihood of held-out unwanted answers, less that of wanted ones, nats per token"
        )
        names: tuple[Literal["all", "kept", "random"], ...] = ("all", "kept", "random")
        shifts = [(measured[f"{name}-unwanted"], measured[f"{name}-wanted"]) for name in names]
        arms, (avoided, at_random) = shift_estimates(shifts, unit, self.seed)
        return FilterValue(
            measure=measure,
            steps=self.steps,
            batch_rows=self.batch_rows,
            learning_rate=self.learning_rate,
            lora_rank=TRIAL_RANK,
            arms=[
                TrialArm(name=name, rows=int(measured[f"{name}-rows"]), shift=arm)
                for name, arm in zip(names, arms, strict=True)
            ],
            avoided=avoided,
            avoided_at_random=at_random,
        )


def row_trial(
    parts: Parts,
    rows: Sequence[Encoded],
    kept: Collection[int],
    held_out: tuple[list[Encoded], list[Encoded]],
    trial: Trial,
    run: RunFolder,
) -> Arrays:
    """`ARM-unwanted` and `ARM-wanted`: fall of the mean NLL of each held-out example by training; `ARM-rows`. What is done is
    kept by the run."""
    texts = [*held_out[0], *held_out[1]]
    counts = np.maximum(counted_tokens(texts), 1)
    before = _read(run, "trial-before", parts, texts)
    found: Arrays = {}
    for name, arm in trial.arms(range(len(rows)), kept).items():
        after = _read(run, f"trial-{name}", parts, texts, trial.trainer(parts, row_loss(parts, rows), arm, run, name))
        found[f"{name}-unwanted"], found[f"{name}-wanted"] = np.split((after - before) / counts, [len(held_out[0])])
        found[f"{name}-rows"] = np.array(len(arm))
    return found


def pair_trial(parts: Parts, pairs: Sequence[EncodedPair], kept: Collection[int], trial: Trial, run: RunFolder) -> Arrays:
    """`ARM-unwanted`: fall of log p(chosen) of every second pair of a shuffle, by DPO on the other half of each arm. What is
    done is kept by the run."""
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(trial.seed)).tolist()
    rows, measured = order[: len(order) // 2], order[len(order) // 2 :]
    if not any(i in kept for i in rows):  # of few pairs, the half that trains could have lost all that stay
        rows, measured = measured, rows
    chosen, rejected = answers_of(pairs)
    before = np.split(_read(run, "trial-before", parts, [*chosen, *rejected]), 2)
    loss = pair_loss(parts, chosen, rejected, before[0], before[1], trial.beta)
    texts = [chosen[i] for i in measured]
    found: Arrays = {}
    for name, arm in trial.arms(rows, kept).items():
        after = _read(run, f"trial-{name}", parts, texts, trial.trainer(parts, loss, arm, run, name))
        found[f"{name}-unwanted"] = before[0][measured] - after
        found[f"{name}-wanted"] = np.zeros(0)
        found[f"{name}-rows"] = np.array(len(arm))
    return found


def _read(
    run: RunFolder,
    name: str,
    parts: Parts,
    texts: Sequence[Encoded],
    training: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Float[ndarray, " text"]:
    """Log-likelihood of every text in nats, kept by the run; `training` makes the model that says it, where any is missing."""
    with ExitStack() as inside:
        ready = False

        def score(numbers: list[int]) -> Arrays:
            nonlocal ready
            if not ready:
                inside.enter_context(training())
                ready = True
            return {"nats": text_log_likelihoods(parts, [texts[i] for i in numbers])}

        return scored_in_run(run, name, parts, [len(text.ids) for text in texts], score)["nats"]
