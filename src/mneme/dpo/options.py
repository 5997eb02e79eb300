"""What `mneme dpo` is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mneme.options import Machine, Option, Part, Progress, Training, settle
from mneme.options.values import MOST_WEIGHT, AdapterBase, ChatTemplate, Here, Overwrite, Seed


@dataclass(frozen=True)
class DpoOptions:
    """What decides a preference training.

    ```python
    mneme.dpo("model", "pairs.jsonl", out="runs/dpo")
    mneme.dpo("model", "pairs.jsonl", out="runs/held", filter="none", sft=0.1, training=mneme.Training(steps=200))
    mneme.dpo("model", "pairs.jsonl", out="runs/paper", optimizer="rmsprop", training=mneme.Training(lora_rank=0))
    ```
    """

    model: Annotated[str | Path, Option("The model to train: a folder or a hub name.")]
    data: Annotated[str | Path | Sequence[Mapping[str, Any]], Option("Pairs: .jsonl, .json, .parquet or .csv.")]
    _: KW_ONLY
    out: Annotated[str | Path, Option("Where model/, preferences.html and preferences.json go.", metavar="DIR")] = "runs/dpo"
    filter: Annotated[
        Literal["ln-ches", "ches", "last-hidden", "edit", "none"],
        Option("Score by which pairs are left out.", metavar="ln-ches|ches|last-hidden|edit|none", decides=True),
    ] = "ln-ches"
    keep: Annotated[
        float, Option("Share of the pairs that the filter keeps.", metavar="SHARE", above=0, most=1, decides=True)
    ] = 0.15
    sft: Annotated[
        float,
        Option("DPO+SFT: weight of the chosen answers' loss per token.", metavar="W", least=0, most=MOST_WEIGHT, decides=True),
    ] = 0.0
    dpop: Annotated[
        float, Option("DPOP: weight of their fall below the reference.", metavar="W", least=0, most=MOST_WEIGHT, decides=True)
    ] = 0.0
    calibrate: Annotated[bool, Option("Reward calibration: rebalance the two gradients.", decides=True)] = False
    beta: Annotated[float, Option("Of DPO.", metavar="X", least=0, most=MOST_WEIGHT, decides=True)] = 0.1
    optimizer: Annotated[
        Literal["adamw", "rmsprop"], Option("What moves the weights.", metavar="adamw|rmsprop", decides=True)
    ] = "adamw"
    """rmsprop as in the papers on DPO."""
    watch: Annotated[int, Option("Pairs that are watched.", metavar="N", least=2, decides=True)] = 32
    """The monitor's intervals are over pairs, so at least two."""
    watch_every: Annotated[int, Option("Steps between two looks.", metavar="N", least=1, decides=True)] = 10
    training: Annotated[
        Training,
        Part(
            ("steps", "learning_rate", "batch", "accumulate", "lora_rank"),
            defaults=Training(batch=16, accumulate=1, lora_rank=16),
            default_told=(("learning_rate", "5e-5, with --lora 0 1e-6"), ("steps", "one epoch of what is kept")),
        ),
    ] = Training()
    seed: Seed = 0
    adapter_base: AdapterBase = None
    chat_template: ChatTemplate = None
    overwrite: Overwrite = False
    machine: Here = Machine()
    progress: Progress = Progress()

    def __post_init__(self) -> None:
        """Raises BadOption outside the ranges above."""
        settle(self)

    @property
    def learning_rate(self) -> float:
        """What was asked for, else the default of an adapter or of all weights."""
        asked = self.training.learning_rate
        return asked if asked is not None else 5e-5 if self.training.lora_rank else 1e-6
