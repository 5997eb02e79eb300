"""What `mneme bench` is asked."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mneme.options import Option, Progress, settle
from mneme.options.values import Overwrite, Seed, joined, parse_names

TOKENS = 98_304
"""Text that every predictor reads: three quarters of an audit's default, which the worlds' text comes to."""


@dataclass(frozen=True)
class BenchOptions:
    """What decides a bench of the built-in worlds.

    ```python
    mneme.bench()
    mneme.bench(worlds=["a", "b"], scenario="unlearning", jobs=2, out="runs/bench")
    ```
    """

    _: KW_ONLY
    worlds: Annotated[
        Sequence[str],
        Option(
            "Built-in worlds; each is judged by calibrations from the others.",
            metavar="NAME,NAME",
            decides=True,
            parse=parse_names,
            write=joined,
        ),
    ] = ("a", "b", "c", "d")
    real: Annotated[
        str | Path | None,
        Option(
            "Judge on fine-tunes of SmolLM2-135M, with the text and questions in DIR (docs/bench.md): some hours.",
            metavar="DIR",
        ),
    ] = None
    """On the command line; in Python `mneme.bench.real.run.bench_real`."""
    scenario: Annotated[
        Literal["unlearning", "misalignment", "benign", "null", "all"],
        Option("Which fine-tunes are judged.", metavar="unlearning|misalignment|benign|null|all", decides=True),
    ] = "all"
    out: Annotated[str | Path, Option("Where bench.json and every finished pair go.", metavar="DIR")] = "runs/bench"
    jobs: Annotated[int, Option("Processes, each on one thread.", metavar="N", least=1, most=1024)] = 1
    seed: Seed = 0
    tokens: Annotated[int, Option("Tokens that every audit reads.", metavar="N", least=1, decides=True)] = TOKENS
    overwrite: Overwrite = False
    judge: Callable[..., Any] | None = None
    """Takes the place of measuring and forecasting one pair (tests)."""
    progress: Progress = Progress()

    def __post_init__(self) -> None:
        """Raises BadOption outside the ranges above."""
        settle(self)
