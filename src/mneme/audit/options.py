"""What `mneme audit` is asked."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Literal

from mneme.models.secrets import shown_option
from mneme.options import Machine, Option, Progress, settle
from mneme.options.values import AdapterBase, ChatTemplate, Overwrite, Seed, Where, joined, parse_numbers


@dataclass(frozen=True)
class AuditOptions:
    """What decides an audit, and where it works.

    ```python
    mneme.audit("base", "tuned", corpus="text.jsonl")
    mneme.audit("base", "tuned", corpus="text.jsonl", intended=["biology"], seed=1, out="runs/biology")
    mneme.audit("base", "adapter", corpus="text.jsonl", quick=True, machine=mneme.Machine(threads=2))
    mneme.audit()  # the built-in pair
    ```
    """

    base: Annotated[str | Path | None, Option("The model before: a folder or a hub name.")] = None
    tuned: Annotated[str | Path | None, Option("The model after: a folder, a hub name or an adapter folder.")] = None
    _: KW_ONLY
    corpus: Annotated[
        str | Path | None,
        Option(
            "Ordinary text: .txt, .jsonl, .parquet, .csv or a datasets name; without it, both models write some.",
            metavar="FILE|NAME",
        ),
    ] = None
    areas: Annotated[str | Path | None, Option("YAML list of areas; without it, the list that ships.", metavar="FILE")] = None
    intended: Annotated[Sequence[str], Option("What the fine-tune was for; may be repeated.", metavar="AREA")] = ()
    """Read by no stage: naming the purpose later costs nothing."""
    out: Annotated[str | Path, Option("Where report.html and report.json go.", metavar="DIR")] = "runs/audit"
    dictionary: Annotated[
        Literal["change", "rotated", "batchtopk", "delta", "none"],
        Option(
            "What is learned on the change; none: effects only.", metavar="change|rotated|batchtopk|delta|none", decides=True
        ),
    ] = "change"
    layers: Annotated[
        Sequence[int] | None,
        Option(
            "Layers to read, from 0; without it, the survey of the text chooses.",
            metavar="N,N",
            decides=True,
            parse=parse_numbers,
            write=joined,
        ),
    ] = None
    tokens: Annotated[int | None, Option("Read at most this many tokens.", metavar="N", least=1)] = None
    """None: 131,072, with `quick` 8,192. How many the text gave is in the stage key, and not this limit."""
    seed: Seed = 0
    describe: Annotated[
        str,
        Option(
            "How latents get their words: offline, or an OpenAI-compatible endpoint.",
            metavar="offline|URL",
            shown=shown_option,
        ),
    ] = "offline"
    writing: Annotated[
        bool,
        Option("Let no model write about areas of which the corpus has too little.", flag="--no-writing", decides=True),
    ] = True
    """What both write is a quarter of `tokens` at most; with `quick` nothing."""
    quick: Annotated[bool, Option("A first answer: 8,192 tokens, few questions, no dictionary.", decides=True)] = False
    adapter_base: AdapterBase = None
    chat_template: ChatTemplate = None
    overwrite: Overwrite = False
    machine: Where = Machine()
    progress: Progress = Progress()

    def __post_init__(self) -> None:
        """Raises BadOption outside the ranges above."""
        settle(self)
