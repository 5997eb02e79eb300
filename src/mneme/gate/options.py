"""What `mneme gate` is asked."""

import datetime
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from mneme.errors import BadOption
from mneme.options import Option, settle


@dataclass(frozen=True)
class GateOptions:
    """What decides whether a run passes.

    ```python
    mneme.gate("runs/audit", policy="policy.yaml").outcome  # "pass", "fail", "not enough evidence"
    mneme.gate("runs/audit", policy="policy.yaml", baseline="runs/approved", out="runs/gate", sarif=True)
    ```
    """

    run: Annotated[str | Path, Option("A finished run: its folder, or report.json or measurement.json in it.")]
    _: KW_ONLY
    policy: Annotated[str | Path, Option("What the run has to keep to (docs/gate.md).", metavar="FILE")]
    baseline: Annotated[
        str | Path | None, Option("An approved run, in the place of the one that the policy names.", metavar="RUN")
    ] = None
    out: Annotated[
        str | Path | None,
        Option("Where gate.json, gate.md and junit.xml go; without it, the folder of the run.", metavar="DIR"),
    ] = None
    sarif: Annotated[bool, Option("Write gate.sarif too, for code scanning.")] = False
    today: Annotated[
        str | None, Option("The day on which waivers are looked at; without it, today in UTC.", metavar="YYYY-MM-DD")
    ] = None

    def __post_init__(self) -> None:
        """Raises BadOption for words that can name nothing, and for a day that is none."""
        settle(self)
        try:
            self.day()
        except ValueError:
            raise BadOption(f"--today {self.today!r} is no day. Expected one such as 2027-03-31.") from None

    def day(self) -> datetime.date:
        """The day itself."""
        if self.today is None:
            return datetime.datetime.now(datetime.UTC).date()
        return datetime.date.fromisoformat(self.today)
