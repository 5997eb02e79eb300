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
