"""What several audits say together. `Lineage` is exactly the content of `compare.json` (`schema: "mneme.compare/1"`)."""

from typing import Any, Literal

from pydantic import Field

from mneme.results.audit import Finding, Kind
from mneme.results.record import Estimate, Record
from mneme.results.showing import flat, frame_of, table_html


class ComparedRun(Record):
    """One audit."""

    name: str
    """Short and unique: the folder's, or the tuned model's."""
    folder: str
    base: str
    tuned: str
    verdict: str
    purpose: float | None
    """Mean size of the effect on the areas that were the purpose, points; None where none was named."""
    side_effects: float
    """Mean size of the effect on the other areas that every run has, points."""
    affected: list[str]
    """Areas outside the purpose that are affected."""


class Cell(Record):
    """One area in one run; None where that run has nothing to say about it."""

    magnitude: Estimate | None
    finding: Finding | None


class AreaRow(Record):
    """One area in every run."""

    area: str
    kind: Kind
    intended: bool
    """The purpose of at least one of the runs."""
    cells: list[Cell]
    """In the order of the runs."""
    did_it: str = ""
    """Of a lineage: the step whose change is the largest of those that are told from none; empty where no step is."""


class RunDifference(Record):
    """One area, the second run minus the first."""

    area: str
    first: str
    second: str
    difference: Estimate
    p_value: float
    q_value: float
    """False-discovery rate over all areas and pairs of runs."""
    paired: bool
    """By item: the same words or prompts in both runs. False: as if the runs were independent."""


class Lineage(Record):
    """Everything that is said of several runs."""

    schema_: Literal["mneme.compare/1"] = Field(default="mneme.compare/1", alias="schema")
    relation: Literal["one base", "steps"]
    """one base: every run is against the same model; steps: every run begins where the one before it ended."""
    runs: list[ComparedRun]
    areas: list[AreaRow]
    differences: list[RunDifference]
    """Of one base: every two runs. Of steps: none, as a run is a step itself."""
    best: str
    """The run with the least side effects among those that are not shown to be worse at the purpose than the best at it."""
    best_why: str
    notes: list[str] = Field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """One row an area in a run."""
        return [
            {"area": row.area, "kind": row.kind, "run": run.name, **flat(cell), "did_it": row.did_it}
            for row in self.areas
            for run, cell in zip(self.runs, row.cells, strict=True)
        ]

    def to_frame(self) -> Any:
        """A pandas data frame of `rows`."""
        return frame_of(self.rows())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return table_html(f"mneme compare: {self.best}", self.best_why, self.rows())

    def to_json(self) -> str:
        """The bytes of `compare.json`."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
