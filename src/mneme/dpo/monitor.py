"""A displacement monitor for TRL's DPO trainer: fixed pairs, looked at every few steps while training runs.

It says what the trainer's own log cannot: per pair, against the same pair before training, with intervals (Razin et al. 2025,
arXiv 2410.08847, section 6): is the chosen answer becoming less likely, of how many pairs, and which tokens take its place.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, TrainerCallback

from mneme.dpo.band import WatchedPairs, watch_pairs
from mneme.models.architecture import Parts
from mneme.models.batching import batches
from mneme.models.likelihood import counted_logits
from mneme.models.modes import evaluating
from mneme.results import Estimate, TooFew
from mneme.results.dpo import Band, Displacement, TokenRise
from mneme.runs import write_atomic
from mneme.stats import clustered_rate, clustered_ratio
from mneme.text.files import Row
from mneme.text.pairs import answers_of

RISING = 10
WARN_AFTER = 3
"""Looks in a row outside the band before it is said."""


class DisplacementMonitor(TrainerCallback):  # type: ignore[misc]
    """Looks at fixed pairs at step 0, every `every` steps and at the end; `looks` and `bands` hold what it saw.

    Make it before training, with the model that will be trained (peft's wrapper where there is one): what it sees then is what
    later looks are compared with. With `path` the looks are on disk, so that a resumed training keeps them. `beta`, `sft`
    and `dpop`: those of the loss, for the band. Weights are not touched. A look costs a forward pass and two backward passes
    on the pairs.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        pairs: Sequence[Row],
        *,
        every: int = 10,
        beta: float = 0.1,
        sft: float = 0.0,
        dpop: float = 0.0,
        path: Path | None = None,
        console: Console | None = None,
        seed: int = 0,
    ) -> None:
        """Measures the pairs as they are now. Raises BadRows for pairs that cannot be used."""
        self.watched = watch_pairs(model, tokenizer, pairs)
        self.tokenizer, self.every, self.path, self.console, self.seed = tokenizer, every, path, console, seed
        self.loss = (beta, sft, dpop)
        self.spoken = mean_probabilities(self.watched)
        self.looks: list[Displacement] = []
        self.bands: list[Band] = []

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Takes up the looks before the step that training goes on from, or looks for the first time."""
        if self.path is not None and self.path.is_file():
            stored = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
            self.looks = [Displacement(**each["look"]) for each in stored if each["look"]["step"] <= state.global_step]
            self.bands = [Band(**each["band"]) for each in stored if each["band"]["step"] <= state.global_step]
        if not self.looks:
            self.look(state.global_step)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Looks where it is time."""
        if state.global_step % self.every == 0:
            self.look(state.global_step)

    def on_train_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Looks at the last step."""
        if not self.looks or self.looks[-1].step != state.global_step:
            self.look(state.global_step)

    def look(self, step: int) -> Displacement:
        """Measure the pairs now, keep it, and warn where the last three looks lay outside the band."""
        found = displacement(self.watched, step, self.spoken, self.tokenizer, self.seed)
        test = self.watched.test(*self.loss)
        band = Band(step=step, log_ratio=test.log_ratio, log_optimum=test.log_optimum, cosine=test.cosine, inside=test.inside)
        self.looks.append(found)
        self.bands.append(band)
        if self.path is not None:
            lines = (
                json.dumps({"look": look.model_dump(), "band": each.model_dump()})
                for look, each in zip(self.looks, self.bands, strict=True)
            )
            write_atomic(self.path, "".join(f"{line}\n" for line in lines).encode())
        self._warn(found, band)
        return found

    def _warn(self, found: Displacement, band: Band) -> None:
        """Says so once, at the third look in a row outside the band."""
        inside = [each.inside for each in self.bands]
        before = len(inside) > WARN_AFTER and not inside[-WARN_AFTER - 1]
        if self.console is None or len(inside) < WARN_AFTER or any(inside[-WARN_AFTER:]) or before:
            return
        self.console.print(
            f"Step {band.step}: the gradients of the watched pairs lie outside the disentanglement band (cosine "
            f"{band.cosine:.2f}): chosen and rejected answers move together. {found.displaced.plain:.0%} of the chosen "
            "answers are less likely than before. Filter the pairs (mneme screen --pairs), or use a fix (--sft, --dpop, "
            "--calibrate).",
            markup=False,
        )


def displacement(
    watched: WatchedPairs,
    step: int,
    before: Float[Tensor, " vocab"],
    tokenizer: PreTrainedTokenizerBase,
    seed: int = 0,
) -> Displacement:
    """The watched pairs now against what they were; intervals over pairs. `before`: `mean_probabilities` before training."""
    chosen, rejected = watched.now()
    changes = chosen - watched.chosen_before, rejected - watched.rejected_before
    rise = mean_probabilities(watched) - before
    top = rise.topk(min(RISING, len(rise)))

    def mean(values: Tensor, unit: str, same: bool = False) -> Estimate | TooFew:
        sums = values.double().numpy()
        return clustered_ratio(sums, np.ones(len(sums)), unit, seed=seed, identical=same, of="pairs")

    fell = clustered_rate((changes[0] < 0).double().numpy(), np.ones(len(chosen)), "share of pairs")
    # Before the first step nothing has changed, in any pair and by construction.
    start = not bool(changes[0].any()) and not bool(changes[1].any())

    return Displacement(
        step=step,
        chosen=mean(chosen, "nats per answer"),
        rejected=mean(rejected, "nats per answer"),
        chosen_change=mean(changes[0], "nats per answer", start),
        rejected_change=mean(changes[1], "nats per answer", start),
        displaced=fell if isinstance(fell, TooFew) else fell.estimate,
        rising=[
            TokenRise(token=tokenizer.decode([token]), rise=value)
            for token, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)
            if value > 0
        ],
    )


@torch.no_grad()
def mean_probabilities(watched: WatchedPairs) -> Float[Tensor, " vocab"]:
    """Mean probability of every token over the places where tokens of the chosen answers stand."""
    parts: Parts = watched.parts
    rows, _ = answers_of(watched.pairs)
    total, places = torch.zeros(()), 0
    with evaluating(watched.model):
        for batch in batches(rows, batch_tokens=2048):
            total = total + counted_logits(parts, batch).float().softmax(-1).sum(0).cpu()
            places += int(batch.counted.sum())
    return total / places
