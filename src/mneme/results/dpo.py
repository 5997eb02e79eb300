"""What a preference training did, to its fixed pairs above all (`preferences.json`)."""

from typing import Literal

from pydantic import Field

from mneme.results.record import Estimate, Record, TooFew


class TokenRise(Record):
    """A token and how much its mean probability rose where the chosen answers stand."""

    token: str
    rise: float


class Displacement(Record):
    """The fixed pairs at one step of a preference training, against the same pairs before the first step."""

    step: int
    chosen: Estimate | TooFew
    """Mean log-probability of the chosen answers, nats per answer."""
    rejected: Estimate | TooFew
    chosen_change: Estimate | TooFew
    """Now - before, nats per answer, paired: below 0 is displacement."""
    rejected_change: Estimate | TooFew
    displaced: Estimate | TooFew
    """Share of the pairs whose chosen answer is less likely than before."""
    rising: list[TokenRise]


class Band(Record):
    """The disentanglement band at one step: are both answers moving the right way at first order?"""

    step: int
    log_ratio: float
    """log of the loss's pull on the chosen over its push on the rejected answer; 0 for DPO."""
    log_optimum: float
    """log(|s_l| / |s_w|) of the gradients of the two log-probabilities."""
    cosine: float
    """Between the two gradients; the band is log_optimum +- -log(cosine), everything where it is not above 0."""
    inside: bool


class PreferenceRun(Record):
    """What `mneme dpo` did (`preferences.json`)."""

    schema_: Literal["mneme.preferences/1"] = Field(default="mneme.preferences/1", alias="schema")
    model: str
    model_sha256: str
    data: str
    data_sha256: str
    pairs: int
    trained_pairs: int
    filter: str
    """The score by which pairs were filtered and the share kept, or "none"."""
    sft_weight: float
    dpop_weight: float
    reward_calibration: bool
    beta: float
    optimizer: str
    learning_rate: float
    steps: int
    lora_rank: int | None
    seed: int
    losses: list[float]
    displacement: list[Displacement]
    band: list[Band]
    outside_band: float
    """Share of the looks at which the pair gradients lay outside the band."""
    versions: dict[str, str]

    notes: list[str] = Field(default_factory=list)
    """What was odd in the files, whose chat template was used and which columns were read, a sentence each."""

    def to_json(self) -> str:
        """The bytes of `preferences.json`."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
