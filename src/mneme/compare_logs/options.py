"""What `mneme compare-logs` is asked."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from mneme.options import Option, settle
from mneme.options.values import Overwrite


@dataclass(frozen=True)
class CompareLogsOptions:
    """What decides a comparison of two logs.

    ```python
    mneme.compare_logs("results/base", "results/tuned")  # folders of lm-eval --log_samples
    mneme.compare_logs("base.eval", "tuned.eval", cluster="passage", audit="runs/audit")
    ```
    """

    first: Annotated[
        str | Path,
        Option("The log before: samples of lm-eval (a file or their folder), a log of Inspect, or JSON lines, one an item."),
    ]
    second: Annotated[str | Path, Option("The log after, of the same items.")]
    _: KW_ONLY
    cluster: Annotated[
        str, Option("A field of the items that those share which are not independent, such as a passage.", metavar="FIELD")
    ] = "cluster"
    area: Annotated[
        str | None, Option("A field of the items by which a task is split, such as a subject.", metavar="FIELD")
    ] = None
    margin: Annotated[
        float, Option("Change that equivalence is tested against, as a share of the scale.", metavar="SHARE", above=0, below=1)
    ] = 0.05
    audit: Annotated[
        str | Path | None, Option("A finished audit of the pair; its areas stand beside the tasks.", metavar="RUN")
    ] = None
    out: Annotated[str | Path, Option("Where logs.html, logs.json and flips.jsonl go.", metavar="DIR")] = "runs/logs"
    overwrite: Overwrite = False

    def __post_init__(self) -> None:
        """Raises BadOption outside the ranges above."""
        settle(self)
