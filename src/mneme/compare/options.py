"""What `mneme compare` is asked."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from mneme.options import Option, settle
from mneme.options.values import Overwrite


@dataclass(frozen=True)
class CompareOptions:
    """Which runs are compared, in the order of training where they have one.

    ```python
    mneme.compare(["runs/sft", "runs/dpo", "runs/merge"])
    mneme.compare(["runs/a", "runs/b"], out="runs/compare").best
    ```
    """

    runs: Annotated[Sequence[str | Path], Option("Finished audits, two or more; checkpoints and steps in their order.")]
    _: KW_ONLY
    out: Annotated[str | Path, Option("Where compare.html and compare.json go.", metavar="DIR")] = "runs/compare"
    overwrite: Overwrite = False

    def __post_init__(self) -> None:
        """Raises BadOption for words that can name nothing."""
        settle(self)
