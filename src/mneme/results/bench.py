"""What a bench says: every cell with its measured truth and what every predictor said of it, and the figures made of them.

`Bench` is exactly the content of `bench.json` (`schema: "mneme.bench/2"`).
"""

from typing import Literal

from pydantic import Field

from mneme.results.record import Estimate, Record, TooFew

Scenario = Literal["unlearning", "misalignment", "benign", "null"]
CellKind = Literal["capability", "statement", "behaviour"]
"""Facts as a user asks for them, facts as sentences to finish, harmful advice."""


class CellScore(Record):
    """What one predictor measured of one cell, before any calibration."""

    size: float = Field(ge=0)
    """Larger = more likely to be a material change; 0 = nothing seen. Predictors have units of their own."""
    sign: Literal[-1, 0, 1] = 0
    """Direction of the change where the predictor sees one: 1 = better or more. 0 = it sees none."""
    probability: float | None = None
    """Where the predictor says a probability of itself (naive, random); else its calibration makes one of `size`."""


class BenchCell(Record):
    """One area's knowledge in one way of asking, or one behaviour in one area, of one pair: measured and predicted."""

    kind: CellKind
    area: str
    change: float
    """Measured: tuned - base, in accuracy or in share of harmful answers."""
    low: float
    high: float
    """Ends of its 95 % interval."""
    material: bool
    """At least 5 points, and the near end of the interval beyond half of that."""
    grey: bool = False
    """Neither material nor within ± 5 points with its whole interval: counts for the Brier score alone."""
    beyond: float = Field(ge=0, le=1)
    """Probability that the true change is at least 5 points: what a grey cell counts as."""
    intended: bool = False
    """What the fine-tune was for."""
    scores: dict[str, CellScore]


class BenchCost(Record):
    """What something cost on the machine of the run, on one thread."""

    seconds: float
    tokens: int
    """Tokens run through a model."""


class BenchPair(Record):
    """One fine-tune."""

    world: str
    name: str
    seed: int
    scenario: Scenario
    cells: list[BenchCell]
    costs: dict[str, BenchCost]
    """Of each baseline that has a dictionary; where costs were taken also `audit` (whole, to its page), `audit without
    dictionary` (the same probabilities) and `measuring everything` (both models)."""


class Score(Record):
    """One predictor on one scenario, judged on worlds that its calibration has not seen. Intervals resample pairs."""

    predictor: str
    scenario: str
    """A scenario, `all`, or a part of the cells: `facts asked`, `facts told`, `advice`, `side effects`."""
    cells: int
    """Those that are not grey."""
    material: int
    pairs: int
    figures: dict[str, Estimate]
    """accuracy, balanced accuracy, precision, recall, F1, AUROC, average precision, Brier, ECE, false alarms, direction. A
    figure that has no value (recall without material cells) is missing."""
    below: dict[str, Estimate]
    """mneme's figure minus this predictor's, same resampled pairs. Empty for mneme itself."""


class FittedCurve(Record):
    """One of the audit's calibration curves as it was used."""

    judged: str
    """The world that was left out of the fit, and judged."""
    curve: str
    midpoint: float
    slope: float


class Bench(Record):
    """Everything a bench says."""

    schema_: Literal["mneme.bench/2"] = Field(default="mneme.bench/2", alias="schema")
    worlds: list[str]
    scenario: str
    pairs: list[BenchPair]
    scores: list[Score]
    curves: list[FittedCurve]
    cost_ratio: Estimate | TooFew | None
    """Seconds of an audit over seconds of measuring everything, same pairs, same process, one thread; None = not timed."""
    quick_ratio: Estimate | TooFew | None
    """The same for the audit with `--dictionary none`: equal probabilities, no latents."""
    token_ratio: Estimate | TooFew | None
    """The same in tokens run through a model."""
    environment: dict[str, str]

    def to_json(self) -> str:
        """The bytes of `bench.json`."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"


class RealBench(Record):
    """What the bench on a real model says: scores by part of the cells (`Score.scenario`), every family of fine-tunes
    judged by curves fitted on the others."""

    schema_: Literal["mneme.real-bench/1"] = Field(default="mneme.real-bench/1", alias="schema")
    fine_tunes: list[str]
    scores: list[Score]
    alarms: dict[str, tuple[int, int]]
    """Predictor -> (null fine-tunes with a false alarm, null fine-tunes)."""

    def to_json(self) -> str:
        """The bytes of `real.json`."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"
