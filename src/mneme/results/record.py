"""What every result is made of: frozen records, and a number with its interval, unit and sample size."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class Estimate(Record):
    """A number with its 95 % interval, unit and sample size (`n` counts independent units: passages)."""

    value: float
    low: float
    high: float
    unit: str
    n: int

    @property
    def plain(self) -> float:
        """The figure without its interval: what `TooFew` has, too."""
        return self.value


class TooFew(Record):
    """What a function of `mneme.stats` says instead of an interval that would not hold: there are too few clusters."""

    value: float | None
    """The plain figure, which nothing is known about; None where it has none."""
    unit: str
    n: int
    """Clusters (questions, passages, pairs) that there are."""
    needed: int
    """From how many on the interval holds."""
    of: str = "clusters"
    """What is counted, in the plural."""

    @property
    def plain(self) -> float:
        """The plain figure as a number; 0 where it has none."""
        return 0.0 if self.value is None else self.value

    def told(self) -> str:
        """ "too few (3 questions, 5 needed)"."""
        return f"too few ({self.n} {self.of}, {self.needed} needed)"
