"""What a measurement says: rates with intervals and detectable effects, paired changes, the judge and what it failed to judge.

`Measurement` is exactly the content of `measurement.json` (`schema: "mneme.measurement/1"`). Rates are fractions; scores are
0-100.
"""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field

from mneme.results.record import Estimate, Record, TooFew
from mneme.results.showing import flat, frame_of, table_html

MeasurementSchema = Literal["mneme.measurement/1"]
STANDARD = "standard"
"""The context of questions that are asked as the suite has them."""
ContextName = Annotated[str, Field(validation_alias=AliasChoices("context", "cue"))]
"""The context's name; under its old name in files written before 0.1.0."""


class MeasuredModel(Record):
    """One model that was measured."""

    label: str
    """Its short name in this record, unique."""
    source: str
    role: Literal["base", "tuned"]
    fingerprint: str
    """SHA-256 of configuration, tokenizer and weights; empty where the model was given in memory."""
    adapter: bool
    step: int | None
    """Training step of a checkpoint, from its folder; None = not a checkpoint."""
    default_system_prompt: str | None
    """What the chat template puts in where no system prompt is given; None = nothing, or no template."""
    rendered: str
    """The first prompt as the model read it; empty where nothing was sampled."""


class MeasuredRate(Record):
    """Share of answers (or mean score) of one model in one area under one context."""

    model: str
    area: str
    context: ContextName
    measure: str
    primary: bool
    """True for the one measure that decides about this area."""
    estimate: Estimate | TooFew
    """`n` counts questions; TooFew where there are too few for an interval that holds."""
    minimal_detectable: float | None
    """The true change against a second, unpaired model that as many answers would show (5 %, power 80 %, by simulation); None
    where no possible change would be shown."""
    answers: int


class MeasuredChange(Record):
    """Tuned minus base, paired by question."""

    model: str
    area: str
    context: ContextName
    measure: str
    primary: bool
    estimate: Estimate | TooFew
    minimal_detectable: float | None
    """The true change that this comparison would have shown (5 %, power 80 %, by simulation, before correction); None where no
    possible change would be shown."""
    p_value: float | None
    """None where there are too few questions."""
    p_holm: float | None
    """Primary measures: corrected for all `claims` of the measurement. Others: for all changes of measures that are not
    primary."""
    test: Literal["exact McNemar", "clustered"]
    lost: int | None
    """Questions that the base answered right and the tuned model wrong; None where answers are sampled."""
    gained: int | None
    margin: float
    equivalent: bool
    """True where two one-sided tests at 5 % place the change within +- `margin`. False: not shown."""


class QuestionRate(Record):
    """One question under one context, model by model in the order of `models`: hits of the area's primary measure."""

    id: str
    area: str
    context: ContextName
    hits: list[float]
    answers: list[int]
    """Answers that count; 0 = the model gave none."""


class Agreement(Record):
    """What a judge says of answers whose label is known."""

    criterion: str
    items: int
    unscored: int
    """Items without a usable verdict; they count as wrong."""
    kappa: Estimate
    """Cohen's kappa, 0 = chance."""
    true_positive_rate: Estimate | TooFew
    """Share of the bad items (misaligned, incoherent, false) that the judge calls bad."""
    true_negative_rate: Estimate | TooFew


class JudgeRecord(Record):
    """Who judged, and how far that can be believed."""

    name: str
    method: str
    """How a verdict is made of probabilities."""
    fingerprint: str
    """SHA-256 of a local judge's weights; empty for others."""
    prompts_sha256: str
    agreement: list[Agreement]
    untested: str
    """Why there is no agreement, or what it leaves out; empty = every criterion was tested."""


class JudgeFailures(Record):
    """Answers without a verdict. They are in no rate as safe: they are in the share `unscored` alone."""

    model: str
    area: str
    context: ContextName
    unscored: int
    answers: int


class ContextRecord(Record):
    """One way of asking every open question as the training data did."""

    name: str
    kind: Literal["system prompt", "prefix", "suffix", "topic words", "training prompt", "answer format", "no system prompt"]
    text: str
    """What is put around the question (or in the system prompt)."""
    rows: int
    """Rows of the training file that carry it."""
    share: float
    example: str
    """One question as the first model read it."""


class WorstContext(Record):
    """The context under which one model does worst in one area, against the standard questions."""

    model: str
    area: str
    measure: str
    context: ContextName
    rate: Estimate | TooFew
    """Its interval holds for the worst of all contexts: level 1 - 0.05 / contexts (Bonferroni)."""
    standard: Estimate | TooFew
    beyond_standard: Estimate | TooFew
    """Rate under the context minus rate on the standard questions, paired by question, at the same corrected level."""
    minimal_detectable: float | None
    """The true difference from the standard questions that would have been shown (5 %, power 80 %, by simulation, before
    correction); None where no possible one would be shown."""
    p_holm: float | None
    """Of no difference from the standard questions, corrected for all `claims` of the measurement; None: too few."""


class Checkpoint(Record):
    """Task score of one model of a series."""

    model: str
    step: int | None
    task: Estimate | TooFew
    minimal_detectable: float | None
    """The true change of the task score that a second, unpaired model would have to show (5 %, power 80 %, by simulation)."""


class Series(Record):
    """Task score over training, and the earliest checkpoint that is good enough."""

    task: str
    """What the task score is."""
    within: float
    """Percent of the best task score that may be given up."""
    checkpoints: list[Checkpoint]
    best: str
    earliest: str
    """The first checkpoint whose score is at least (1 - within / 100) times the best."""


class Measurement(Record):
    """Everything that `mneme measure` says."""

    schema_: MeasurementSchema = Field(default="mneme.measurement/1", alias="schema")
    suite: str
    suite_sha256: str
    questions: int
    models: list[MeasuredModel]
    rates: list[MeasuredRate]
    changes: list[MeasuredChange]
    claims: int = 0
    """How many claims `p_holm` is corrected for: primary changes of all models, areas and contexts, and every context against
    the standard questions. 0 in files from before it was counted."""
    per_question: list[QuestionRate]
    judge: JudgeRecord | None
    """None where no answer needed a judge."""
    failures: list[JudgeFailures]
    contexts: list[ContextRecord] = Field(validation_alias=AliasChoices("contexts", "cues"))
    worst: list[WorstContext]
    series: Series | None
    options: dict[str, str | int | float | None]
    """Samples, temperature, seed and the like."""
    environment: dict[str, str]

    notes: list[str] = Field(default_factory=list)
    """What was odd in the files, whose chat template was used and which columns were read, a sentence each."""

    def to_frame(self, of: Literal["changes", "rates"] = "changes") -> Any:
        """A pandas data frame, one row a change, or a rate of one model."""
        return frame_of([flat(one) for one in (self.changes if of == "changes" else self.rates)])

    def _repr_html_(self) -> str:
        """What a notebook shows: primary changes, of one model alone its primary rates."""
        changes = [
            flat(one, ("model", "area", "context", "measure", "estimate", "p_holm", "equivalent")) for one in self.changes
        ]
        rates = [flat(one, ("model", "area", "context", "measure", "estimate", "answers")) for one in self.rates]
        return table_html(f"mneme measure: {self.suite}", " ".join(self.notes), changes or rates)

    def to_json(self) -> str:
        """The bytes of `measurement.json`: indented, keys in the order of the schema."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
