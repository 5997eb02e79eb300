"""What every training on TRL shares: the library itself, where a killed run goes on, and how its model is left behind."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, Trainer

from mneme.errors import BadOption
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


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written whole (its state, which comes last, can be read), or None."""
    whole = []
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        try:
            whole.append((int(json.loads(state.read_text(encoding="utf-8"))["global_step"]), state.parent))
        except (json.JSONDecodeError, KeyError, UnicodeDecodeError):
            continue  # cut short by the kill that we are recovering from
    return max(whole)[1] if whole else None


def save_trained(
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerBase | None,
    run: RunFolder,
    files: Mapping[str, bytes],
    seconds: Mapping[str, float],
) -> None:
    """Writes `model/` (whole or not at all), the records in `files` and `timings.json`; drops the checkpoints."""
    draft, final = run.stages / "model", run.folder / "model"
    shutil.rmtree(draft, ignore_errors=True)
    trainer.model.save_pretrained(draft)
    (draft / "README.md").unlink(missing_ok=True)
    if tokenizer is not None:
        tokenizer.save_pretrained(draft)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(draft, final)
    run.seconds.update(seconds)
    run.finish(files)
    shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
