"""What a screening says of training data (`screening.json`)."""

from typing import Literal

from pydantic import Field

from mneme.results.record import Estimate, Record


class RankedRow(Record):
    """One row or pair of the data, most suspect first."""

    rank: int
    row: int
    """Its number in the data, from 1."""
    kept: bool
    scores: dict[str, float]
    """Score -> value, in the unit that the summary names; high is suspect."""
    question: str
    answer: str
    """How it begins; of a pair the chosen answer."""


class ScoreSummary(Record):
    """One score over the whole data."""

    name: str
    unit: str
    median: float
    highest: float
    threshold: float | None
    """The lowest score of a row that was dropped; None where it is not the score that ranks."""
    agreement: float | None
    """Spearman correlation with the score that ranks; None where either is constant."""


class TrialArm(Record):
    """One short training and what it did to held-out examples."""

    name: Literal["all", "kept", "random"]
    """random: as many rows as were kept, drawn at random."""
    rows: int
    shift: Estimate


class FilterValue(Record):
    """What filtering buys, by three short trainings of equal length, measured on examples that no score has seen.

    The intervals are over held-out examples; each training ran once, so that another seed is not in them.
    """

    measure: str
    """What `shift` is, in words, with its unit; higher is worse."""
    steps: int
    batch_rows: int
    learning_rate: float
    lora_rank: int
    arms: list[TrialArm]
    avoided: Estimate | None
    """Share of the shift of all rows that training on the kept rows avoids; None = all rows do not shift it clearly."""
    avoided_at_random: Estimate | None
    """The same with rows dropped at random."""


class RowScreening(Record):
    """Everything a screening says (`screening.json`); every row is in `ranked.jsonl`, the kept ones in `kept.jsonl`."""

    schema_: Literal["mneme.screening/1"] = Field(default="mneme.screening/1", alias="schema")
    model: str
    model_sha256: str
    data: str
    data_sha256: str
    kind: Literal["rows", "pairs"]
    rows: int
    tokens: int
    kept: int
    ranked_by: str
    direction: str | None
    """Where the direction of a projection comes from and its layer; None = no projection was asked for."""
    scores: list[ScoreSummary]
    top: list[RankedRow]
    value: FilterValue | None
    no_value: str
    """Why there is no estimate of what filtering buys; empty where there is one."""
    seed: int
    versions: dict[str, str]

    notes: list[str] = Field(default_factory=list)
    """What was odd in the files, whose chat template was used and which columns were read, a sentence each."""

    def to_json(self) -> str:
        """The bytes of `screening.json`."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
