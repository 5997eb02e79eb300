"""What `mneme measure` is asked."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mneme.models.secrets import shown_option
from mneme.options import Machine, Option, Progress, settle
from mneme.options.values import AdapterBase, ChatTemplate, Here, Overwrite, Seed

Aggregate = Literal["answer", "question"]
"""How answers to open questions make a rate (`measure/aggregate.py`)."""


@dataclass(frozen=True)
class MeasureOptions:
    """What decides a measurement.

    ```python
    mneme.measure("model", suite="standard")
    mneme.measure("base", ["tuned"], suite="misalignment", judge="local:Qwen/Qwen2.5-7B-Instruct", samples=20)
    mneme.measure("base", ["run/checkpoint-10", "run/checkpoint-20"], suite="questions.yaml", data="task.jsonl")
    ```
    """

    base: Annotated[str | Path, Option("The model, or the model before: a folder or a hub name.")]
    tuned: Annotated[
        str | Path | Sequence[str | Path],
        Option("Models after: folders, hub names, adapters, or checkpoints of one run."),
    ] = ()
    _: KW_ONLY
    suite: Annotated[
        str | Path,
        Option(
            "standard, misalignment, deception, refusal, advice; a .yaml, .jsonl or .parquet file, or a folder of them; "
            "world-NAME; lm-eval:TASK, inspect:TASK.",
            metavar="NAME|FILE|DIR",
        ),
    ] = "standard"
    judge: Annotated[
        Any,
        Option(
            "Who reads open answers: local:MODEL, http(s)://…?model=NAME, or verdict: before either.",
            metavar="JUDGE",
            shown=shown_option,
        ),
    ] = None
    """A name, or any `mneme.measure.judging.Judge`."""
    contexts: Annotated[
        str | Path | None, Option("Training file; its contexts are put around every open question.", metavar="FILE")
    ] = None
    data: Annotated[
        str | Path | None, Option("Task file: choices, or training rows; gives the task score.", metavar="FILE")
    ] = None
    within: Annotated[
        float, Option("How much of the best task score may be given up.", metavar="PERCENT", least=0, below=100)
    ] = 5.0
    samples: Annotated[
        int | None,
        Option("Answers to each paraphrase; without it, as the suite says.", metavar="N", least=1, decides=True),
    ] = None
    max_tokens: Annotated[int, Option("Longest answer.", metavar="N", least=1, decides=True)] = 256
    temperature: Annotated[float, Option("Of sampling; 0 is greedy.", metavar="T", least=0, most=100, decides=True)] = 1.0
    margin: Annotated[float, Option("Change that equivalence is tested against.", metavar="SHARE", above=0, below=1)] = 0.05
    seeds_of_one: Annotated[bool, Option("The tuned models are training seeds of one recipe.")] = False
    aggregate: Annotated[
        Aggregate,
        Option("Open answers: every answer alike, or every question (of 5 answers or more).", metavar="answer|question"),
    ] = "answer"
    out: Annotated[str | Path, Option("Where measurement.html and measurement.json go.", metavar="DIR")] = "runs/measure"
    seed: Seed = 0
    adapter_base: AdapterBase = None
    chat_template: ChatTemplate = None
    overwrite: Overwrite = False
    trust_suite_code: Annotated[
        bool, Option("Run Python that a task of lm-eval or Inspect names. Off unless you ask for it.")
    ] = False
    machine: Here = Machine()
    grammar: Callable[[str], Any] | None = None
    """What reads answers exactly (`mneme.measure.judging.Grammar`): in Python only."""
    progress: Progress = Progress()

    def __post_init__(self) -> None:
        """Raises BadOption outside the ranges above."""
        settle(self)

    @property
    def models(self) -> list[str | Path]:
        """The tuned models, as a list."""
        return [self.tuned] if isinstance(self.tuned, str | Path) else list(self.tuned)
