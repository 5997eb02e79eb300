"""`mneme.SideEffects(corpus="text.jsonl", policy={"*": 10})`: the quick audit inside any trainer of transformers or TRL.

The base is read in the middle of the first step, after its backward pass and before its update: the weights are then still
those of the base, and how long the step took says how much text a look may read. Looks read the live model without its
optimizer, in eval mode, and leave mode, gradients and random numbers as they were.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import CallbackHandler

from mneme.errors import BadOption
from mneme.gate.policy import Policy
from mneme.models.adapters import adapter_off, inner_model
from mneme.models.architecture import Parts, find_parts
from mneme.models.likelihood import text_log_likelihoods
from mneme.models.modes import evaluating
from mneme.models.pair import load_model
from mneme.options.fields import MOST_WHOLE, check_text
from mneme.text.encoded import Encoded
from mneme.text.pairs import EncodedPair, answers_of
from mneme.watch.looks import Budget, Look, breach_of, budget_for, is_due, judge_of, told_of
from mneme.watch.reading import SideRead, as_pair, effects_between, plan_look, read_side, within

LOG = logging.getLogger("mneme")
WATCHED_PAIRS = 16
"""Pairs of a preference data set whose chosen answers are watched: a round number that was never varied."""
_LOOKS = 10
"""Looks over a training where the user names no number. A round number that was never varied."""
_LEAST_TOKENS = 1024
"""Tokens below which a look says too little to be worth a reading: two rows of every fourth area. Never varied."""
_PAIR_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")


class SideEffects(TrainerCallback):  # type: ignore[misc]
    """Watches what a training changes beyond its purpose, and stops it by policy; `looks` holds what it saw.

    ```python
    watch = mneme.SideEffects(corpus="ordinary.jsonl", every=50, policy={"not_worse_than": 10}, intended=["law"])
    trainer = SFTTrainer(model, args, train_dataset=rows, callbacks=[watch])
    ```

    For Trainer, SFTTrainer, DPOTrainer and their kin on models that a process holds whole (no ZeRO 3, no FSDP). `base`: folder
    or hub name of what is compared with; None is the model as this training found it. `every`: optimizer steps from look to
    look, or "epoch"; None is ten looks. `policy`: a policy of `mneme gate` (a file, or what stands in one), or a function of a
    `Look` that returns why it is broken; None only logs. `share`: of the expected training time that reading may take in
    all, 10 % unless said: looks are saved on first, then text; None sets no limit. `keep`: save a checkpoint at every look
    that keeps the policy, and name the last one as the trainer's best. `areas`, `tokens`, `seed`: as for a quick audit.

    Metrics (`Look.metrics`) go through the trainer's own logger. Of preference data (TRL's DPO columns) the change of
    log p(chosen) of 16 pairs is one.
    """

    def __init__(
        self,
        base: str | Path | None = None,
        *,
        corpus: str | Path,
        areas: str | Path | None = None,
        intended: Sequence[str] = (),
        every: int | Literal["epoch"] | None = None,
        policy: Policy | Mapping[str, Any] | str | Path | Callable[[Look], str | None] | None = None,
        share: float | None = 0.1,
        keep: bool = False,
        tokens: int = 8192,
        seed: int = 0,
    ) -> None:
        """Reads no model and no text yet. Raises BadPolicy, or BadOption for a number out of its range and for a name that can
        name nothing."""
        if share is not None and not 0 < share <= 1:
            raise BadOption(f"share={share}: give the share of the training time that looks may take, above 0 and at most 1.")
        if every not in (None, "epoch") and not (isinstance(every, int) and every >= 1):
            raise BadOption(f"every={every!r}: give at least 1 step from look to look, or 'epoch'.")
        for name, number, least in (("tokens", tokens, 1), ("seed", seed, 0)):
            if not least <= number <= MOST_WHOLE:
                raise BadOption(f"{name}={number}: give a whole number from {least} to {MOST_WHOLE}.")
        for name, path in (("corpus", corpus), ("areas", areas), ("policy", policy), ("base", base)):
            if isinstance(path, str | Path):
                check_text(f"{name}=", path, path=True)
        self.base, self.corpus, self.areas, self.intended = base, corpus, areas, tuple(intended)
        self.every, self.judge, self.share, self.keep, self.tokens, self.seed = (
            every,
            judge_of(policy),
            share,
            keep,
            tokens,
            seed,
        )
        self.looks: list[Look] = []
        self.seconds = 0.0
        """Spent so far, laying out included."""
        self.best_checkpoint: str | None = None
        self._began = self._step_began = 0.0
        self._parts: Parts | None = None
        self._before: tuple[SideRead, tuple[np.ndarray, np.ndarray] | None] | None = None
        self._last = 0
        self._budget = Budget(tokens, 0)
        self._budgeted = False
        """Whether it is known how much looks may take: from the first step on."""

    @property
    def tokens_read(self) -> int:
        """Tokens that one look reads, once training has begun."""
        return self._plan.tokens()

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **given: Any) -> None:
        """Lays out what is read. Raises BadOption, BadAreas or BadCorpus for what cannot be used."""
        started = time.monotonic()
        self._began, self._last, self.looks, self._before = started, state.global_step, [], None
        self._budgeted = False
        model, tokenizer = given["model"], given["processing_class"]
        if state.global_step and self.base is None and not hasattr(model, "disable_adapter"):
            raise BadOption(
                f"Training goes on from step {state.global_step}, where the model is no longer the base: give base= to "
                "mneme.SideEffects."
            )
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise BadOption("The trainer has no tokenizer: give it one with processing_class=.")
        with self._as_it_was(model):
            self._parts = find_parts(inner_model(model))
            longest = as_pair(self._parts, tokenizer).max_positions
            self._plan = plan_look(
                self.corpus, self.areas, self.intended, tokenizer, longest=longest, tokens=self.tokens, seed=self.seed
            )
        self._names = [area.name for area in self._plan.areas]
        if isinstance(self.judge, Policy):  # a rule about an area that there is not is said before anything is trained
            breach_of(
                self.judge,
                Look(step=0, effects=(), chosen_change=None, displaced=None, seconds=0.0),
                self._names,
                self.intended,
                looks=1,
            )
        self._pairs = watched_pairs(getattr(given.get("train_dataloader"), "dataset", None))
        self._spend(started)

    def on_step_begin(self, *_args: Any, **_given: Any) -> None:
        """Notes the time."""
        if not self._budgeted:
            self._step_began = time.monotonic()

    def on_pre_optimizer_step(self, args: Any, state: Any, _control: Any, **given: Any) -> None:
        """Before the first update: how much a look may read, and the base at all of it."""
        if self._budgeted:
            return
        started = time.monotonic()
        model, tokenizer = given["model"], given["processing_class"]
        expected = (started - self._step_began) * (state.max_steps - state.global_step)
        with self._as_it_was(model), adapter_off(model if state.global_step else None):
            live = self._parts
            assert live is not None
            parts = live if self.base is None else load_model(self.base, device=str(live.device)).parts
            pair = as_pair(parts, tokenizer)
            cost = self._token_seconds(pair)
            wanted, whole = self._wanted(args, state), self._plan.tokens()
            self._budget = budget_for(self.share, expected - self.seconds, cost, whole, wanted, _LEAST_TOKENS)
            if (told := told_of(self._budget, self.share, wanted, whole)) is not None:
                LOG.warning(told)
            if self._budget.looks:  # else the base would be read for nothing
                self._plan = within(self._plan, self._budget.tokens)
                self._before = read_side(pair, self._plan), self._answered(parts)
        self._budgeted = True
        self._spend(started)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> Any:
        """Looks where it is time, and the budget allows it."""
        if self.every != "epoch" and is_due(state.global_step, self._steps(state), self._last) and self._affordable(state):
            self._look(args, state, control, given["model"], given["processing_class"])
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> Any:
        """Looks where epochs are asked for."""
        if self.every == "epoch" and self._affordable(state):
            self._look(args, state, control, given["model"], given["processing_class"])
        return control

    def on_save(self, args: Any, state: Any, _control: Any, **_given: Any) -> None:
        """Names the checkpoint of the last look that kept the policy as the best."""
        if self.keep and self.looks and self.looks[-1].step == state.global_step and self.looks[-1].breach is None:
            self.best_checkpoint = str(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            state.best_model_checkpoint = self.best_checkpoint

    def _look(self, args: Any, state: Any, control: Any, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        started = time.monotonic()
        assert self._parts is not None
        assert self._before is not None
        base, answered = self._before
        with self._as_it_was(model):
            effects = effects_between(self._plan, base, read_side(as_pair(self._parts, tokenizer), self._plan, base))
            now = self._answered(self._parts)
        chosen, displaced = None, None
        if now is not None and answered is not None:
            change = now[0] - answered[0]
            chosen, displaced = float(change.mean()), float((change < 0).mean())
        look = Look(step=state.global_step, effects=tuple(effects), chosen_change=chosen, displaced=displaced, seconds=0.0)
        look = replace(look, breach=breach_of(self.judge, look, self._names, self.intended, self._budget.looks))
        self._last = state.global_step
        self._spend(started)
        look = replace(look, seconds=time.monotonic() - started)
        self.looks.append(look)
        _log(look.metrics(), args, state, control)
        if look.breach is not None:
            LOG.warning("Step %d: training stops, the policy is broken: %s.", state.global_step, look.breach)
            control.should_training_stop = True
        elif self.keep:
            control.should_save = True

    def _wanted(self, args: Any, state: Any) -> int:
        """Looks that were asked for."""
        if self.every == "epoch":
            return max(1, math.ceil(float(args.num_train_epochs)))
        return _LOOKS if self.every is None else max(1, int(state.max_steps) // int(self.every))

    def _steps(self, state: Any) -> int:
        """Steps from look to look: those asked for, or more where the budget has fewer looks."""
        steps = int(state.max_steps)
        asked = self.every if isinstance(self.every, int) else max(1, steps // _LOOKS)
        return max(asked, -(-steps // max(self._budget.looks, 1)))

    def _affordable(self, state: Any) -> bool:
        """Whether one look more stays within the share of the training as it is now expected to take."""
        if self.share is None:
            return True
        if self._before is None:
            return False
        trained = time.monotonic() - self._began - self.seconds
        expected = trained * int(state.max_steps) / max(int(state.global_step), 1)
        cost = max((look.seconds for look in self.looks), default=self._before[0].seconds)
        return self.seconds + cost <= self.share * expected

    def _token_seconds(self, pair: Any) -> float:
        """Seconds that a token takes, from reading little twice and taking the second."""
        little = within(self._plan, _LEAST_TOKENS // 2)
        read_side(pair, little)
        return read_side(pair, little).seconds / max(little.tokens(), 1)

    def _answered(self, parts: Parts) -> tuple[np.ndarray, np.ndarray] | None:
        """log p of the chosen and of the rejected answers of the watched pairs, nats; None where there are none."""
        if not self._pairs:
            return None
        sides: tuple[list[Encoded], list[Encoded]] = answers_of(self._pairs)
        chosen, rejected = (text_log_likelihoods(parts, side) for side in sides)
        return chosen, rejected

    def _spend(self, started: float) -> None:
        self.seconds += time.monotonic() - started

    @contextmanager
    def _as_it_was(self, model: Any) -> Iterator[None]:
        """In eval mode and without the trainer's own wrapping of its forward; afterwards as before, random numbers too."""
        trained = {weight: weight.requires_grad for weight in model.parameters()}
        inner = inner_model(model)
        wrapped = inner.__dict__.get("forward")
        plain = inner.__dict__.get("_original_forward")  # where accelerate put mixed precision around it
        with torch.random.fork_rng(), torch.no_grad(), evaluating(model):
            if plain is not None:
                inner.forward = plain
            try:
                yield
            finally:
                if plain is not None:
                    inner.forward = wrapped
                for weight, required in trained.items():
                    if weight.requires_grad != required:
                        weight.requires_grad_(required)


def watched_pairs(dataset: Any) -> tuple[EncodedPair, ...]:
    """`WATCHED_PAIRS` pairs spread over a preference data set as TRL tokenises it; none for any other data."""
    columns = getattr(dataset, "column_names", None) or ()
    if not set(_PAIR_COLUMNS) <= set(columns):
        return ()
    chosen = np.unique(np.linspace(0, len(dataset) - 1, WATCHED_PAIRS).astype(int))
    rows = (dataset[int(number)] for number in chosen)
    return tuple(EncodedPair(*(tuple(int(one) for one in row[name]) for name in _PAIR_COLUMNS)) for row in rows)


def _log(metrics: dict[str, float], args: Any, state: Any, control: Any) -> None:
    """Give metrics to everything that listens to the trainer's log, and to its history.

    A callback is given no trainer. Its caller's caller is the handler of callbacks, which is what `Trainer.log` logs through;
    where another program calls the callback there is none, and the looks themselves hold the numbers.
    """
    state.log_history.append({**metrics, "step": state.global_step, "epoch": state.epoch})
    frame: Any = sys._getframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), CallbackHandler):
        frame = frame.f_back
    if frame is not None:
        due = control.should_log  # listening resets it
        frame.f_locals["self"].on_log(args, state, control, dict(metrics))
        control.should_log = due
