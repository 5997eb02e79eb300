"""What the jobs say: frozen, versioned records, one file a job. The records of an audit are names of this room itself."""

from mneme.results.record import Estimate, Record, TooFew
from mneme.results.report import (
    AbsentArea,
    Baselines,
    Corpus,
    Cost,
    Direction,
    Effect,
    Environment,
    Kind,
    Latent,
    Layer,
    NullCheck,
    Pair,
    PartialEffect,
    Report,
    TokenExample,
    Verdict,
)

__all__ = [
    "AbsentArea",
    "Baselines",
    "Corpus",
    "Cost",
    "Direction",
    "Effect",
    "Environment",
    "Estimate",
    "Kind",
    "Latent",
    "Layer",
    "NullCheck",
    "Pair",
    "PartialEffect",
    "Record",
    "Report",
    "TokenExample",
    "TooFew",
    "Verdict",
]
