"""What two logs of the same evaluation say of a change: paired by item, with its interval, its flips and its power.

`LogComparison` is exactly the content of `logs.json` (`schema: "mneme.logs/1"`).
"""

from typing import Any, Literal

from pydantic import Field

from mneme.results.record import Estimate, Record, TooFew
from mneme.results.showing import flat, frame_of, table_html


class LogChange(Record):
    """One measure of one task: the second log minus the first."""

    task: str
    measure: str
    primary: bool
    """The first measure of the task; the others are shown beside it."""
    higher_is_better: bool
    items: int
    """That both logs have with this measure."""
    first: float
    """Mean of the first log over these items."""
    second: float
    change: Estimate | TooFew
    """`n` counts clusters."""
    test: Literal["exact McNemar", "clustered"]
    p_value: float | None
    p_holm: float | None
    """Corrected for the primary measures of all tasks; None for others, and where there are too few items."""
    lost: int | None
    """Items right in the first log and wrong in the second; None where answers are no yes or no."""
    gained: int | None
    detectable: float | None
    """The true change that would have been shown (5 %, power 80 %); None where no possible one would be, or is not known."""
    margin: float
    """What equivalence is tested against: points, or units of the score."""
    equivalent: bool
    """Two one-sided tests at 5 % place the change within the margin. False: not shown."""
    not_worse: bool
    """One test at 5 %: not worse by the margin. False: not shown."""
    forecast: Estimate | None = None
    """What an audit said of the area of that name."""
    forecast_said: str = ""


class Flip(Record):
    """An item that one log has right and the other wrong."""

    task: str
    id: str
    lost: bool
    """Right in the first log."""
    prompt: str
    target: str
    before: str
    after: str


class JudgeAgreement(Record):
    """Two yes-or-no measures of one task, on the same answers of both logs."""

    task: str
    first: str
    second: str
    answers: int
    same: float
    """Share on which they agree."""
    kappa: float | None
    """Cohen's kappa, 0 = chance; None where one of them always says the same."""


class LogComparison(Record):
    """Everything that two logs say together."""

    schema_: Literal["mneme.logs/1"] = Field(default="mneme.logs/1", alias="schema")
    first: str
    second: str
    files_sha256: list[str]
    changes: list[LogChange]
    flips: list[Flip]
    """Some of each task and direction; flips.jsonl has all."""
    judges: list[JudgeAgreement]
    unpaired: dict[str, int]
    """Task -> items that only one of the logs has."""
    audit: str = ""
    claims: int
    """Primary changes that `p_holm` is corrected for."""
    notes: list[str] = Field(default_factory=list)

    def to_json(self) -> str:
        """The bytes of `logs.json`."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    def to_frame(self) -> Any:
        """A pandas data frame, one row a measure of a task."""
        return frame_of([flat(change) for change in self.changes])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        shown = ("task", "measure", "items", "first", "second", "change", "lost", "gained", "p_holm", "equivalent")
        return table_html("mneme compare-logs", " ".join(self.notes), [flat(change, shown) for change in self.changes])

    def primary(self) -> list[LogChange]:
        """One change a task."""
        return [change for change in self.changes if change.primary]
