"""What a recipient finds of a run that somebody else made: what holds, what was changed, what could not be looked at."""

from typing import Any, Literal

from pydantic import Field

from mneme.results.record import Record
from mneme.results.showing import flat, frame_of, table_html

Held = Literal["holds", "changed", "not checked"]


class VerifyCheck(Record):
    """One part of a run."""

    what: str
    """manifest, report.json, run.json, evidence.npz, options, base, tuned, text, effects and verdict, page, signature."""
    outcome: Held
    detail: str
    """One sentence: what was compared, or what differs."""


class Verification(Record):
    """Everything that was looked at."""

    schema_: Literal["mneme.verification/1"] = Field(default="mneme.verification/1", alias="schema")
    run: str
    manifest_sha256: str
    """Of the whole manifest: what a sender can tell a recipient in one line."""
    signed_by: str = ""
    """The ed25519 public key whose signature holds, base64; empty where there is none."""
    verified: bool
    """Nothing that was looked at was changed."""
    checks: list[VerifyCheck]

    def to_frame(self) -> Any:
        """A pandas data frame, one row a part."""
        return frame_of([flat(check) for check in self.checks])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        said = "verified" if self.verified else "changed"
        return table_html(f"mneme verify: {said}", f"Manifest {self.manifest_sha256}", [flat(check) for check in self.checks])

    def to_json(self) -> str:
        """The JSON of it."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
