"""What `mneme repair` is asked."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Literal

from mneme.options import Machine, Option, Part, Progress, Training, settle
from mneme.options.values import MOST_WEIGHT, AdapterBase, ChatTemplate, Here, Overwrite, Seed


@dataclass(frozen=True)
class RepairOptions:
    """What decides a repair.

    ```python
    mneme.repair("base", "tuned", target="lost.jsonl", retain="purpose.jsonl", out="runs/repair")
    mneme.repair(from_run="runs/audit", close=0.9)
    mneme.repair("base", "tuned", target=a, retain=b, method="patch", training=mneme.Training(steps=120, learning_rate=1e-3))
    ```
    """

    base: Annotated[str | Path | None, Option("The model before: a folder or a hub name.")] = None
    tuned: Annotated[str | Path | None, Option("The model after: a folder, a hub name or an adapter folder.")] = None
    _: KW_ONLY
    target: Annotated[str | Path | None, Option("Text on which the model shall be as the base again.", metavar="FILE")] = None
    retain: Annotated[str | Path | None, Option("Text of the purpose, on which it shall stay as tuned.", metavar="FILE")] = (
        None
    )
    other: Annotated[str | Path | None, Option("Ordinary text, to measure drift on.", metavar="FILE")] = None
    from_run: Annotated[
        str | Path | None, Option("A finished audit: models and text come from it.", metavar="DIR", flag="--from")
    ] = None
    method: Annotated[
        Literal[
            "all", "scale", "random", "antidote", "wanda-delta", "project", "arithmetic", "obs", "regmean", "patch",
            "retrain", "ablate",
        ],
        Option("all tries every method; the controls scale and random always run.", metavar="NAME"),
    ] = "all"  # fmt: skip
    close: Annotated[float, Option("Share of the gap to close, and no more.", metavar="SHARE", above=0, most=1)] = 0.8
    unaligned: Annotated[
        str | Path | None, Option("The model before alignment: for project and arithmetic.", metavar="MODEL")
    ] = None
    retain_weight: Annotated[
        float,
        Option(
            "retrain: how hard it is held to TUNED on retained text; 0: not at all.",
            metavar="X",
            least=0,
            most=MOST_WEIGHT,
            decides=True,
        ),
    ] = 1.0
    reaudit: Annotated[bool, Option("With --from: do not audit the repaired model.", flag="--no-reaudit")] = True
    out: Annotated[str | Path, Option("Where model/, repair.html and repair.json go.", metavar="DIR")] = "runs/repair"
    training: Annotated[Training, Part(("steps", "learning_rate"), defaults=Training(steps=60, learning_rate=2e-3))] = (
        Training()
    )
    """Of patch and retrain."""
    seed: Seed = 0
    adapter_base: AdapterBase = None
    chat_template: ChatTemplate = None
    overwrite: Overwrite = False
    machine: Here = Machine()
    progress: Progress = Progress()

    def __post_init__(self) -> None:
        """Raises BadOption outside the ranges above."""
        settle(self)
