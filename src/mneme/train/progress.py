"""What a training shows while it runs, where it goes on after a kill, and what it leaves behind."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import peft
import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from mneme.errors import BadRun
from mneme.results.train import HeldOutLoss, StepRecord, TrainingRecord, UsedSafeguard
from mneme.text.rows import Row, rows_hash
from mneme.train.safeguards import SAFEGUARDS
from mneme.version import __version__


class ShowProgress(TrainerCallback):  # type: ignore[misc]
    """A bar of steps with the loss; quiet where nobody looks on."""

    def __init__(self, console: Console) -> None:
        """Shows nothing before training begins."""
        name = TextColumn("train {task.description}", markup=False)
        columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self.task: Any = None

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Opens the bar at the step that is done."""
        self.progress.start()
        self.task = self.progress.add_task("", total=state.max_steps, completed=state.global_step)

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float] | None = None, **_kwargs: Any) -> None:
        """Moves the bar."""
        said = f"loss {logs['loss']:.3f}" if logs and "loss" in logs else ""
        if self.task is not None:
            self.progress.update(self.task, completed=state.global_step, description=said)

    def on_train_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Closes the bar."""
        self.progress.stop()


def quiet(trainer: Trainer) -> None:
    """Takes away the callback that prints every log to standard output."""
    trainer.remove_callback(PrinterCallback)


def record_of(
    trainer: Trainer,
    command: Mapping[str, Any],
    base: str,
    rows: Sequence[Row],
    interleaved: int,
    chosen: Mapping[str, float],
    lora_rank: int | None,
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
        base=base,
        base_fingerprint=command["base"],
        data_sha256=rows_hash(rows),
        rows=len(rows),
        interleaved=interleaved,
        safeguards=[UsedSafeguard(name=n, strength=s, unit=SAFEGUARDS[n].unit) for n, s in sorted(chosen.items())],
        lora_rank=lora_rank,
        learning_rate=command["learning_rate"],
        batch_rows=trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps,
        epochs=command["epochs"],
        seed=command["seed"],
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
