"""What an unlearning run says: what was asked, what the losses did, what is gone, what stayed, and whether it comes back."""

from typing import Literal

from pydantic import Field

from mneme.results.record import Estimate, Record, TooFew


class UnlearningText(Record):
    """One of the two texts."""

    source: str
    sha256: str
    documents: int
    tokens: int


class TextChange(Record):
    """What happened to the likelihood of one text."""

    nll_before: Estimate | TooFew
    nll_after: Estimate | TooFew
    """Nats per token."""
    change: Estimate | TooFew
    """Nats per token, after - before, paired by token: above 0 is forgotten."""
    kept: Estimate | TooFew | None
    """Share of the tokens the model knew (they tell of this text and not of the other; p > 1/2 before) that are still its
    first choice; None = it knew none."""
    measured_documents: int


class StepLosses(Record):
    """Losses of one step, before it was taken; units are the method's own. None where the weight is 0."""

    step: int
    forget: float | None
    retain: float | None


class Relearning(Record):
    """One relearning attack: training on a few texts, and what of the forgotten text came back that was not among them."""

    kind: Literal["related", "unrelated"]
    """related: texts of the forget set itself; unrelated: texts of the retain set."""
    documents: int
    steps: int
    learning_rate: float
    kept_before: Estimate | TooFew | None
    """Unlearned model, on the forget texts that the attack does not see."""
    kept_after: Estimate | TooFew | None
    """The same after relearning."""
    change: Estimate | TooFew
    """Nats per token on those texts, relearned - unlearned: below 0 came back."""


class UnlearningSettings(Record):
    """What decided the weights."""

    method: str
    steps: int
    learning_rate: float
    beta: float
    forget_weight: float
    retain_weight: float
    retain_loss: str
    layers: list[int]
    batch_documents: int
    max_tokens: int
    lora_rank: int | None
    seed: int
    defaults: str
    """Where the values that were not given come from."""


class WeightChange(Record):
    """How far the weights moved."""

    changed_tensors: int
    total_tensors: int
    relative: float
    """|W_after - W_before| / |W_before| over all tensors (Frobenius)."""


class UnlearningEnvironment(Record):
    """With what."""

    mneme: str
    python: str
    torch: str
    transformers: str
    peft: str
    device: str
    threads: int


class Unlearning(Record):
    """Everything an unlearning run says: the content of `unlearn.json`."""

    schema_: Literal["mneme.unlearning/1"] = Field(default="mneme.unlearning/1", alias="schema")
    model: str
    fingerprint: str
    """SHA-256 of the model that was unlearned."""
    result: str
    """Folder of the unlearned model or adapter, below the run's folder."""
    settings: UnlearningSettings
    forget_text: UnlearningText
    retain_text: UnlearningText
    weights: WeightChange
    forget: TextChange
    retain: TextChange
    relearning: list[Relearning]
    losses: list[StepLosses]
    environment: UnlearningEnvironment

    notes: list[str] = Field(default_factory=list)
    """What was odd in the files, whose chat template was used and which columns were read, a sentence each."""

    def to_json(self) -> str:
        """The bytes of `unlearn.json`."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
