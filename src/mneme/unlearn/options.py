"""What `mneme unlearn` is asked."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Literal

from mneme.options import Machine, Option, Part, Progress, Training, settle
from mneme.options.values import MOST_WEIGHT, AdapterBase, ChatTemplate, Here, Overwrite, Seed, joined, parse_numbers

Method = Literal["grad-ascent", "grad-diff", "npo", "simnpo", "rmu", "undial"]
RetainLoss = Literal["nll", "kl"]


@dataclass(frozen=True)
class UnlearnOptions:
    """What decides an unlearning.

    ```python
    mneme.unlearn("model", forget="biology.txt", retain="rest.jsonl")
    mneme.unlearn("model", forget="biology.txt", retain="rest.jsonl", method="rmu", layers=[5], relearn=10)
    mneme.unlearn("model", forget="a.txt", retain="b.txt", training=mneme.Training(steps=200, lora_rank=16))
    ```
    """

    model: Annotated[str | Path, Option("The model: a folder or a hub name.")]
    _: KW_ONLY
    forget: Annotated[str | Path, Option("What is to go: .txt, .jsonl, .parquet, .csv, a datasets name.", metavar="FILE|NAME")]
    retain: Annotated[str | Path, Option("What has to stay: text near it, too.", metavar="FILE|NAME")]
    method: Annotated[
        Method,
        Option("How it is made to go.", metavar="grad-ascent|grad-diff|npo|simnpo|rmu|undial"),
    ] = "npo"
    beta: Annotated[
        float | None, Option("Strength, by method; without it, the method's default.", metavar="X", above=0, most=MOST_WEIGHT)
    ] = None
    forget_weight: Annotated[
        float | None, Option("Weight of the loss that forgets.", metavar="X", least=0, most=MOST_WEIGHT)
    ] = None
    retain_weight: Annotated[
        float | None, Option("Weight of the loss that retains.", metavar="X", least=0, most=MOST_WEIGHT)
    ] = None
    retain_loss: Annotated[
        RetainLoss,
        Option("Hold the text that stays by likelihood, or to the model as it was.", metavar="nll|kl"),
    ] = "nll"
    layers: Annotated[
        Sequence[int] | None,
        Option("rmu: blocks whose output is misdirected, from 0.", metavar="N,N", parse=parse_numbers, write=joined),
    ] = None
    max_tokens: Annotated[int, Option("Longer texts are cut into pieces of this.", metavar="N", least=2, decides=True)] = 512
    relearn: Annotated[
        int,
        Option("Attack the result: train on N texts of either set and measure again.", metavar="N", least=0, decides=True),
    ] = 0
    out: Annotated[str | Path, Option("Where model/, unlearn.html and unlearn.json go.", metavar="DIR")] = "runs/unlearn"
    training: Annotated[
        Training,
        Part(
            ("steps", "learning_rate", "batch", "lora_rank"),
            defaults=Training(steps=100, batch=8, lora_rank=0),
            default_told=(("learning_rate", "the method's, by width"),),
        ),
    ] = Training()
    """Steps of `batch` texts of either set; `learning_rate` None: the method's, by width."""
    seed: Seed = 0
    adapter_base: AdapterBase = None
    chat_template: ChatTemplate = None
    overwrite: Overwrite = False
    machine: Here = Machine()
    progress: Progress = Progress()

    def __post_init__(self) -> None:
        """Raises BadOption outside the ranges above."""
        settle(self)
