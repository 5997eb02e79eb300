"""What a gate says of a finished run: every limit of its policy, whether it is kept, and why.

`GateResult` is exactly the content of `gate.json` (`schema: "mneme.gate/1"`).
"""

from typing import Any, Literal

from pydantic import Field

from mneme.results.record import Estimate, Record, TooFew
from mneme.results.showing import flat, frame_of, table_html

Limit = Literal["not_worse_than", "size", "probability", "verdict", "power"]
Outcome = Literal["pass", "fail", "not enough evidence", "waived"]
Whole = Literal["pass", "fail", "not enough evidence"]


class GateCheck(Record):
    """One limit on one area."""

    area: str
    kind: str
    """capability, behaviour, unlisted, measured, or overall (the areas together)."""
    limit: Limit
    allowed: str
    """The limit in words: "not worse than by 5 points"."""
    outcome: Outcome
    reason: str
    """One sentence: what was found, and what it was held against."""
    found: Estimate | TooFew | None = None
    """What was compared with the limit; None where that is no number with an interval."""


class GateResult(Record):
    """Every check of a policy on one run."""

    schema_: Literal["mneme.gate/1"] = Field(default="mneme.gate/1", alias="schema")
    run: str
    """The folder of the run that was judged."""
    result_sha256: str
    """Of the result file in it, as it was judged."""
    policy: str
    """The policy file; empty where the policy is `--fail-on`."""
    policy_sha256: str
    baseline: str = ""
    """The approved run that it was compared with; empty where there is none."""
    date: str
    """The day on which waivers were looked at."""
    outcome: Whole
    checks: list[GateCheck]
    notes: list[str] = Field(default_factory=list)
    """Waivers that expired or cover nothing, and what else a reader should know, a sentence each."""

    def to_json(self) -> str:
        """The bytes of `gate.json`."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    def to_frame(self) -> Any:
        """A pandas data frame, one row a check."""
        return frame_of([flat(check) for check in self.checks])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        shown = ("area", "limit", "allowed", "outcome", "reason")
        return table_html(f"mneme gate: {self.outcome}", " ".join(self.notes), [flat(check, shown) for check in self.checks])

    def of(self, outcome: Outcome) -> list[GateCheck]:
        """The checks that ended so."""
        return [check for check in self.checks if check.outcome == outcome]
