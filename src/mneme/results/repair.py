"""What a repair says (`repair.json`): every method at every strength tried, the one that was chosen, and what it cost."""

from typing import Literal

from pydantic import Field

from mneme.results.record import Estimate, Record, TooFew


class RepairPoint(Record):
    """One method at one strength, on the development halves of the probes."""

    strength: float
    """0 = the tuned model, 1 = as far as the method goes (the base, for those that end there)."""
    closed: Estimate | TooFew
    """Share of the target's change in likelihood that was undone."""
    lost: Estimate | TooFew
    """Share of the retained text's change in likelihood that went with it: the gain of the fine-tune that was lost."""
    selectivity: Estimate | TooFew
    """closed - lost. 0 is what a straight line between the two models would be worth."""


class RepairMethod(Record):
    """One method of the search."""

    method: str
    description: str
    control: bool
    points: list[RepairPoint]
    """Every strength that the search tried, ascending."""
    chosen: RepairPoint | None
    """The weakest strength that closes the wanted share; None = no strength does."""
    energy_removed: float | None
    """|D - dW|^2 / |dW|^2 over the linear maps at the chosen strength; None = no chosen strength."""
    other_change: Estimate | TooFew | None
    """Change in log-likelihood of other text, repaired - base, nats per token; None = no such text, or no chosen strength."""
    coherent: Estimate | TooFew | None
    """Share of sampled continuations that read like the base's or the tuned model's own; None = no chosen strength."""


class AbsentMethod(Record):
    """A method that was not tried, and why."""

    method: str
    reason: str


class ProbeText(Record):
    """One of the two texts that a repair goes by."""

    source: str
    texts: int
    tokens: int
    change: float
    """Mean |L_tuned - L_base|, nats per counted token, development half."""
    examples: list[str]


class Reaudit(Record):
    """One area of the audit before and after the repair."""

    area: str
    kind: str
    intended: bool
    probability_before: float | None
    """None: uncalibrated."""
    probability_after: float | None
    before: Estimate
    after: Estimate


class SavedRepair(Record):
    """What was written."""

    kind: Literal["adapter", "model"]
    folder: str
    rank: int | None
    """Rank of the adapter; None for a whole model."""
    residual: float | None
    """|D - D_r| / |D| of the adapter of that rank (Frobenius, all layers); None for a whole model."""


class RepairReport(Record):
    """Everything a repair says."""

    schema_: Literal["mneme.repair/1"] = Field(default="mneme.repair/1", alias="schema")
    base: str
    tuned: str
    adapter: bool
    changed_layers: int
    goal: float
    """Share of the gap that was to be closed."""
    target: ProbeText
    retain: ProbeText
    other: ProbeText | None
    methods: list[RepairMethod]
    absent: list[AbsentMethod]
    chosen: str | None
    """The method with the highest selectivity among those that reach the goal, controls apart; None = none reaches it."""
    tuned_coherent: Estimate | TooFew
    tuned_other_change: Estimate | TooFew | None
    saved: SavedRepair | None
    reaudit: list[Reaudit]
    """Empty where no audit was given."""
    seed: int
    versions: dict[str, str]

    notes: list[str] = Field(default_factory=list)
    """What was odd in the files, whose chat template was used and which columns were read, a sentence each."""

    def to_json(self) -> str:
        """The bytes of `repair.json`: indented, keys in the order of the schema."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    def method(self, name: str) -> RepairMethod:
        """The record of one method. Raises KeyError where it was not tried."""
        return {method.method: method for method in self.methods}[name]
