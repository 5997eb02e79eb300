"""What every training on TRL shares: the library itself, where a killed run goes on, and how its model is left behind."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback

from mneme.errors import BadOption
from mneme.models.keeping import Keeping
from mneme.runs import RunFolder


def import_trl(purpose: str) -> Any:
    """The module trl. Raises BadOption, with the extra to install, where it is missing; `purpose` begins the sentence."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import trl
    except ImportError as error:
        raise BadOption(
            f"{purpose} needs TRL, which is not installed. Install it with: pip install 'mneme-audit[train]'"
        ) from error
    return trl


CHECKPOINTS = "checkpoints"
"""The workspace of a run in which its trainer keeps checkpoints."""


SAVING = {"save_strategy": "no", "save_total_limit": 2}
"""What a trainer's own arguments say of checkpoints: `KeepCheckpoints` decides when, and the last two stay."""


class KeepCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Asks for a checkpoint about once a minute, and seals it as soon as it is whole: `last_checkpoint` takes no other."""

    def __init__(self, run: RunFolder) -> None:
        """`run`: whose workspace the checkpoints are in."""
        self._run = run
        self._keeping = Keeping()

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        """Starts the clock."""
        self._keeping = Keeping()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_kwargs: Any) -> Any:
        """An optimizer step is done; after the last one the model itself is saved."""
        if self._keeping.is_due() and state.global_step < state.max_steps:
            control.should_save = True
        return control

    def on_save(self, args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """A checkpoint has been written."""
        self._run.seal_tree(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._keeping.kept()


def last_checkpoint(run: RunFolder) -> Path | None:
    """The last checkpoint in the run's workspace that is as this run wrote and sealed it, or None: what a kill cut short, and
    what somebody put or changed there, is passed over."""
    sealed = []
    for state in run.workspace(CHECKPOINTS).glob("checkpoint-*/trainer_state.json"):
        if run.is_sealed(state.parent):
            sealed.append((int(json.loads(state.read_text(encoding="utf-8"))["global_step"]), state.parent))
    return max(sealed)[1] if sealed else None


def recompute_activations(trainer: Any) -> None:
    """Has a trainer that was built without it make activations again in the backward pass: a third more time for memory."""
    trainer.args.gradient_checkpointing = True
    trainer.args.gradient_checkpointing_kwargs = {"use_reentrant": False}


def save_trained(
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerBase | None,
    run: RunFolder,
    files: Mapping[str, bytes],
    seconds: Mapping[str, float],
) -> None:
    """Writes `model/` (whole or not at all), the records in `files` and `timings.json`; drops the checkpoints."""
    run.clear_workspace("model")
    draft = run.workspace("model")
    trainer.model.save_pretrained(draft)
    (draft / "README.md").unlink(missing_ok=True)
    if tokenizer is not None:
        tokenizer.save_pretrained(draft)
    run.adopt(draft, "model")
    run.seconds.update(seconds)
    run.finish(files)
    run.clear_workspace(CHECKPOINTS)
