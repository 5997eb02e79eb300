"""What an audit says: frozen, versioned, every number with its unit, interval and sample size.

`Report` is exactly the content of `report.json` (`schema: "mneme.report/1"`). No torch here: a report renders anywhere.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from mneme.results.record import Estimate, Record
from mneme.results.showing import flat, frame_of, table_html

Direction = Literal["worse", "better", "more", "less", "changed"]
Kind = Literal["capability", "behaviour", "unlisted"]
Verdict = Literal["change", "no material change", "no detectable change", "inconclusive"]
"""no detectable change is said of identical models only; no material change where every area is shown to be unaffected."""
BROKEN_AS_A_WHOLE = "Broken as a whole"
AFFECTED_AS_A_WHOLE = "Affected as a whole"
"""What the reason of a report begins with whose text became so unlikely that single areas say little."""
Finding = Literal["affected", "unaffected", "not enough evidence"]


KNOWN_UNIT = "probability of the true word among four, weighted by what is known"
"""Of an effect that was read at the words which a model knows; pages say so."""


class Baselines(Record):
    """What the cheap signals say of the same text, as ratios to the rest of the corpus where marked."""

    kl: float
    """Mean KL(tuned||base) on the area's tokens, nats per token."""
    nll: float
    """Mean change in negative log-likelihood, tuned - base, nats per token, all tokens."""
    activation: float
    """Mean |h_tuned - h_base| / |h_base| at the chosen layers, on the area's tokens."""


class PartialEffect(Record):
    """A behaviour in the text of one capability area: where it changed."""

    area: str
    """The capability area."""
    probability: float | None = Field(ge=0, le=1)
    direction: Direction
    magnitude: Estimate
    baselines: Baselines | None


class Effect(Record):
    """One area that the change may have reached, with its probability."""

    area: str
    kind: Kind
    probability: float | None = Field(ge=0, le=1)
    """Calibrated P(material change): at least 5 points of accuracy (capability) or of rate (behaviour). None where the finding
    is *not enough evidence* (reports of earlier versions may have one), and where no curve was fitted for this kind of
    evidence (`calibrated` is then False); effect, interval and verdict stand without it."""
    direction: Direction
    magnitude: Estimate
    """What happened in this area, whatever happened elsewhere: the raw effect."""
    evidence: list[str]
    """Ids of the latents behind it, strongest first."""
    baselines: Baselines | None
    """None where no token of its text was looked at as a whole."""
    signal: Literal["likelihood", "latents", "both", "none"]
    """Which signal found it: the change in likelihood of its text, the changed latents, or both."""
    intended: bool = False
    """True where the user named the area as what the fine-tune was for."""
    description: str = ""
    """In words: what moved, from the text itself."""
    rank: int = 0
    """1 = most probable."""
    parts: list[PartialEffect] = Field(default_factory=list)
    """Of a behaviour: the same in the text of each capability area that has enough of it."""
    excess: Estimate | None = None
    """What happened here beyond the other areas; None where nothing is compared."""
    finding: Finding | None = None
    """What is said of the area; None = not judged (unlisted effects)."""
    beyond: bool = False
    """Affected beyond the other areas."""
    q_value: float | None = None
    """False-discovery rate over everything that the report claims of areas; None = no interval."""
    power: float | None = None
    """The loss that would have been seen here with a probability of 80 %, in the unit of the magnitude, however it comes."""
    power_singly: float | None = None
    """The same of a loss that comes word by word, which is easier to see than one of whole words and passages; None in reports
    of earlier versions."""
    more_passages: int | None = None
    """Passages more that would settle it; None where it is settled or that cannot be told."""
    items: int = 0
    """Words, or prompts with paired answers, that it was read at."""
    types: int = 0
    """Different words among them: the number that counts for knowledge."""
    margin_change: float | None = None
    """Of knowledge: mean change of the true word's margin over three others, nats."""
    accuracy_change: float | None = None
    """Of knowledge: change of accuracy among four words, weighted by what is known."""
    largest_word: str = ""
    """Of knowledge: the word that carries most of it."""
    calibrated: bool = True
    """False where no curve was fitted for this kind of evidence: `probability` is then None. True beside a P of None: the
    evidence is not enough, and P is open."""
    source: Literal["words", "answers", "text", "continuations", "latents"] = "text"
    """What it was read from: own words, paired answers, text of the behaviour, continuations of such texts that were cut where
    they could still go either way, or the passages of latents."""
    self_written: bool = False
    """Read in text that both models wrote about the area, because the given text has too little of it."""
    passages: list[str] = Field(default_factory=list)
    """Three passages that were taken for its text: the likeliest, the middle one and the least likely; none where the text was
    not read."""

    @property
    def standing(self) -> float:
        """Where it stands among other effects: P; without a P 1 where it is affected, 0 where unaffected, else 1/2."""
        if self.probability is not None:
            return self.probability
        return {"affected": 1.0, "unaffected": 0.0}.get(self.finding or "", 0.5)

    def reaches(self, threshold: float) -> bool:
        """P is at least `threshold`; where P is uncalibrated, the area is said to be affected."""
        return self.finding == "affected" if self.probability is None else self.probability >= threshold


class AbsentArea(Record):
    """An area about which nothing can be said, and why. Absence is not zero."""

    area: str
    kind: Kind
    reason: str
    passages: int


class TokenExample(Record):
    """A passage in which a latent fires, token by token."""

    tokens: list[str]
    activations: list[float]
    """Code of the latent at each token, 0 where it is silent (RMS units of the layer's change)."""
    likelihood_change: list[float]
    """log p_tuned - log p_base of each token given what stands before it, nats; first token 0."""
    base_prediction: str
    """What the base model says next at the token where the latent is strongest."""
    tuned_prediction: str
    """What the tuned model says there."""


class Latent(Record):
    """One direction of change, scored and described."""

    id: str
    layer: int
    description: str
    change_energy: float
    """Share of |q|^2 (minus its mean) that this latent carries, 0 to 1."""
    causal_share: Estimate | None
    """Share of KL(tuned||base), on the passages where it fires, that goes when its change is ablated; None = not tested."""
    causal_q_value: float | None
    """False-discovery-rate corrected p against magnitude-matched random controls; None = not tested."""
    likelihood_change: Estimate
    """Change in probability of the tokens that base or tuned was confident of, where it fires, against its own null."""
    firing_rate: float
    relative_norm: float
    """|d_tuned| / (|d_base| + |d_tuned|), 0.5 = the same in both."""
    cosine: float
    nu_error: float | None
    nu_reconstruction: float | None
    label: Literal["shared", "amplified", "suppressed", "tuned-only", "base-only", "mean"]
    key_phrases: list[str]
    promoted: list[str]
    """Tokens the latent's change pushes up (logit lens of d_tuned - d_base)."""
    suppressed: list[str]
    description_score: float | None
    """Balanced accuracy of the description on held-out contexts that it was not written from; None = too few."""
    areas: list[str]
    """Areas whose text it prefers, strongest first."""
    examples: list[TokenExample]


class Layer(Record):
    """What the change looks like at one layer of the residual stream (index: after block `layer`, 0-based)."""

    layer: int
    relative_change: float
    """mean |q|/|h_base| (both in raw units), the size of the change."""
    mean_share: float
    """Share of |q|^2 that is one constant vector (its mean)."""
    first_component_share: float
    """Share of centred |q|^2 on its first principal component."""
    output_share: float | None
    """Share of KL(tuned||base) that goes when the residual stream here is replaced by the base's: how much of the change in
    output has happened by this layer. None where it was not measured: layers are looked for coarse to fine."""
    chosen: bool
    unexplained: float | None
    """Share of centred q on held-out text that the dictionary leaves unexplained; None = layer not chosen."""
    k: float | None
    """Mean latents a token, chosen by the elbow of unexplained change; None = layer not chosen."""
    rounding: float = 0.0
    """Share of centred |q|^2 that is rounding: of matrix products in bfloat16 against float32. 0 = computed in float32."""


class NullCheck(Record):
    """One pair that must be silent, audited the same way, and what it showed."""

    name: str
    description: str
    statistic: str
    value: float
    threshold: float


class ProbeOutputs(Record):
    """Both models on one probe text of a few tokens, before anything else is read."""

    kl: float
    """Mean KL(tuned || base), nats a token."""
    largest: float
    """Largest difference of a logit, in units of the largest logit."""
    first_layer: int | None
    """First block behind which the residual streams differ by more than reading leaves."""
    relative: float
    """|h_tuned - h_base| / |h_base| behind that block."""
    same_to: str | None
    """The number format whose rounding explains every difference of the weights: one model in two precisions."""


class Pair(Record):
    """The two models."""

    base: str
    tuned: str
    architecture: str
    parameters: int
    layers: int
    width: int
    adapter: bool
    changed_tensors: int
    total_tensors: int
    relative_weight_change: float
    """|W_tuned - W_base| / |W_base| over all tensors (Frobenius)."""
    median_rank: float | None
    """Median effective rank of the changed matrices; None = nothing changed or too large to decompose."""
    outputs: ProbeOutputs | None = None
    """None in reports of earlier versions, and where no tensor differs."""


class Corpus(Record):
    """The ordinary text that was read."""

    source: str
    documents: int
    passages: int
    tokens: int
    row_length: int
    sha256: str
    self_written: bool = False
    """No text was given: both models wrote it."""


class Cost(Record):
    """What the run was planned to cost, from shapes alone: the same on every machine, so that a resumed run writes the
    same bytes. What it did cost on this machine stands in `timings.json` beside the report."""

    seconds: float
    """Planned seconds at the nominal rate of 20 GFLOP/s."""
    tokens: int
    """Tokens run through both models, all passes."""
    peak_bytes: int
    """Planned peak memory of the process."""
    flops: float


class Environment(Record):
    """Where and with what."""

    mneme: str
    python: str
    torch: str
    transformers: str
    seed: int
    dictionary: str
    threads: int
    calibration: str
    """Which calibration turned the signals into probabilities, and on how many pairs it was fitted."""


class Report(Record):
    """Everything an audit says."""

    schema_: Literal["mneme.report/1"] = Field(default="mneme.report/1", alias="schema")
    pair: Pair
    corpus: Corpus
    verdict: Verdict
    reason: str
    """One sentence that says why the verdict is what it is."""
    effects: list[Effect]
    absent: list[AbsentArea]
    latents: list[Latent]
    layers: list[Layer]
    null: list[NullCheck]
    cost: Cost
    environment: Environment
    overall: dict[str, Estimate]
    """Whole-corpus figures: KL both ways, change in NLL, confident tokens flipped."""
    top_tokens: list[str]
    """Tokens whose probability the change raised most over the corpus."""
    broad: Estimate | None = None
    """What happened to the knowledge of all areas: the median of their raw effects; None with fewer than two."""
    claims: int | None = None
    """About areas, raw and beyond the others, in every way in which they were read: what false discoveries are controlled
    over. None in reports of earlier versions."""
    command: str = ""
    """What to type for the same report, where it goes and on how many threads apart. Empty in reports of earlier versions."""

    notes: list[str] = Field(default_factory=list)
    """What was odd in the files, whose chat template was used and which columns were read, a sentence each."""

    def to_frame(self, of: Literal["effects", "latents", "absent"] = "effects") -> Any:
        """A pandas data frame, one row an effect (a latent, an area without text); intervals are columns of their own."""
        rows: dict[str, Sequence[Record]] = {"effects": self.effects, "latents": self.latents, "absent": self.absent}
        return frame_of([flat(one) for one in rows[of]])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        shown = ("area", "kind", "probability", "direction", "magnitude", "finding", "power", "intended")
        return table_html(f"mneme audit: {self.verdict}", self.reason, [flat(one, shown) for one in self.effects])

    def to_json(self) -> str:
        """The bytes of `report.json`: indented, keys in the order of the schema, floats as Python prints them."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
