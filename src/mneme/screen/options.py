"""What `mneme screen` is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

from mneme.options import Machine, Option, Progress, settle
from mneme.options.values import AdapterBase, ChatTemplate, Here, Overwrite, Seed

Rows = Sequence[Mapping[str, Any]]
"""Rows or pairs given in Python."""


@dataclass(frozen=True)
class ScreenOptions:
    """What decides a screening.

    ```python
    mneme.screen("model", "rows.jsonl", out="runs/screen", unwanted="bad.jsonl", wanted="good.jsonl")
    mneme.screen("model", "pairs.jsonl", out="runs/pairs", pairs=True, scores=["ln-ches", "edit"], keep=0.05)
    ```
    """

    model: Annotated[str | Path, Option("The model that would be trained: a folder or a hub name.")]
    data: Annotated[str | Path | Rows, Option("Training rows or pairs: .jsonl, .json, .parquet or .csv.")]
    _: KW_ONLY
    out: Annotated[str | Path, Option("Where kept.jsonl, ranked.jsonl and the page go.", metavar="DIR")] = "runs/screen"
    pairs: Annotated[bool, Option("The data are preference pairs: prompt, chosen, rejected.", decides=True)] = False
    scores: Annotated[
        Sequence[str],
        Option(
            "Rows: gradient, projection, projection-prompt, gap. Pairs: ln-ches, ches, last-hidden, edit. May be repeated; "
            "the first ranks.",
            metavar="NAME",
            flag="--score",
            decides=True,
            default_told="gradient, with --pairs ln-ches",
        ),
    ] = ()
    keep: Annotated[
        float | None,
        Option(
            "Share of the data that is kept.",
            metavar="SHARE",
            above=0,
            most=1,
            decides=True,
            default_told="0.8, with --pairs 0.15",
        ),
    ] = None
    """None: of rows 0.8 (drop the fifth that looks worst), of pairs 0.15 (Razin et al. 2025: 5 % works best, up to 15 % is
    similar)."""
    unwanted: Annotated[str | Path | Rows | None, Option("Rows that show what is unwanted.", metavar="FILE")] = None
    wanted: Annotated[str | Path | Rows | None, Option("Rows that show the opposite.", metavar="FILE")] = None
    vector: Annotated[
        str | Path | None, Option("A direction for projection: safetensors, one vector.", metavar="FILE", decides=True)
    ] = None
    layer: Annotated[int | None, Option("Layer of the direction, from 0.", metavar="N", least=0, decides=True)] = None
    other: Annotated[str | Path | None, Option("For gap: a model that has the behaviour.", metavar="MODEL", decides=True)] = (
        None
    )
    trial_steps: Annotated[
        int, Option("Steps of the trial trainings; 0 leaves them out.", metavar="N", least=0, decides=True)
    ] = 40
    trial_rate: Annotated[
        float,
        Option("Learning rate of the trial trainings.", metavar="RATE", flag="--trial-lr", least=0, below=1, decides=True),
    ] = 2e-4
    seed: Seed = 0
    adapter_base: AdapterBase = None
    chat_template: ChatTemplate = None
    overwrite: Overwrite = False
    machine: Here = Machine()
    progress: Progress = Progress()

    def __post_init__(self) -> None:
        """Raises BadOption outside the ranges above."""
        settle(self)
