"""What a training shows while it runs, where it goes on after a kill, and what it leaves behind."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import peft
import torch
import transformers
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from mneme.errors import BadRun
from mneme.options import Progress
from mneme.results.train import HeldOutLoss, StepRecord, TrainingRecord, UsedSafeguard
from mneme.text.files import Row
from mneme.text.rows import rows_hash
from mneme.train.options import TrainOptions
from mneme.train.safeguards import SAFEGUARDS
from mneme.version import __version__


class ShowProgress(TrainerCallback):  # type: ignore[misc]
    """A bar of steps with the loss; in a log file a line at least every half minute."""

    def __init__(self, progress: Progress) -> None:
        """Shows nothing before training begins."""
        self.progress = progress
        self.stack = ExitStack()
        self.advance: Callable[[int], None] | None = None
        self.done = 0

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Opens the bar at the step that is done."""
        track = self.stack.enter_context(self.progress.bars())
        self.advance, self.done = track("training (steps)", state.max_steps), 0
        self._move(state.global_step)

    def on_log(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Moves the bar."""
        self._move(state.global_step)

    def on_train_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Closes the bar."""
        self.stack.close()

    def _move(self, step: int) -> None:
        if self.advance is not None:
            self.advance(step - self.done)
        self.done = step


def quiet(trainer: Trainer) -> None:
    """Takes away the callback that prints every log to standard output."""
    trainer.remove_callback(PrinterCallback)


def record_of(
    trainer: Trainer, options: TrainOptions, fingerprints: Mapping[str, str], rows: Sequence[Row], interleaved: int
) -> TrainingRecord:
    """The record of a finished training. Raises BadRun where a loss is not a number."""
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    for entry in logged:
        if not math.isfinite(entry["loss"]):
            raise BadRun(
                f"the loss is {entry['loss']} at step {entry['step']}: training diverged. "
                "Give a smaller --lr, or weaker safeguards."
            )
    steps = [
        StepRecord(
            step=entry["step"],
            loss=entry["loss"],
            learning_rate=entry["learning_rate"],
            penalties={name.removeprefix("penalty/"): v for name, v in entry.items() if name.startswith("penalty/")},
        )
        for entry in logged
    ]
    held_out = [HeldOutLoss(step=e["step"], loss=e["eval_loss"]) for e in trainer.state.log_history if "eval_loss" in e]
    return TrainingRecord(
        base=str(options.base),
        base_fingerprint=fingerprints["base"],
        data_sha256=rows_hash(rows),
        rows=len(rows),
        interleaved=interleaved,
        safeguards=[UsedSafeguard(name=n, strength=s, unit=SAFEGUARDS[n].unit) for n, s in sorted(options.chosen.items())],
        lora_rank=options.training.settled().lora_rank,
        learning_rate=trainer.args.learning_rate,
        batch_rows=trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps,
        epochs=options.training.settled().epochs,
        seed=options.seed,
        steps=trainer.state.global_step,
        planned_steps=trainer.state.max_steps,
        losses=steps,
        held_out=held_out,
        versions={
            "mneme": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "trl": _trl_version(),
        },
    )


def _trl_version() -> str:
    import trl

    return str(trl.__version__)
