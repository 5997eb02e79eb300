"""What a training with safeguards says of itself: `training.json` (`schema: "mneme.training/1"`). No torch here."""

from typing import Literal

from pydantic import Field

from mneme.results.record import Record


class UsedSafeguard(Record):
    """One safeguard of a run, with the strength that was used and what that number means."""

    name: str
    strength: float
    unit: str


class StepRecord(Record):
    """One logged optimizer step."""

    step: int
    loss: float
    """Mean loss of the step with its penalties, nats per learned token."""
    learning_rate: float
    penalties: dict[str, float]
    """Unweighted mean of each penalty, by name."""


class HeldOutLoss(Record):
    """Loss on rows that were kept out of the training data."""

    step: int
    loss: float
    """Nats per learned token."""


class TrainingRecord(Record):
    """Everything that a training with safeguards says; not how long it took, so that a resumed run writes the same."""

    schema_: Literal["mneme.training/1"] = Field(default="mneme.training/1", alias="schema")
    base: str
    base_fingerprint: str
    data_sha256: str
    """Of the rows as they were trained on, safe rows and prompts included."""
    rows: int
    interleaved: int
    """How many of the rows are safe rows put among them."""
    safeguards: list[UsedSafeguard]
    lora_rank: int | None
    """None = all weights were trained."""
    learning_rate: float
    batch_rows: int
    epochs: float
    seed: int
    steps: int
    """Optimizer steps done."""
    planned_steps: int
    losses: list[StepRecord]
    held_out: list[HeldOutLoss]
    versions: dict[str, str]

    notes: list[str] = Field(default_factory=list)
    """What was odd in the files, whose chat template was used and which columns were read, a sentence each."""

    def to_json(self) -> str:
        """The bytes of `training.json`: indented, keys in the order of the schema."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
