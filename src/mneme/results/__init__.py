"""What the jobs say: frozen, versioned records, one file a job. The records of an audit are names of this room itself."""

from mneme.results.audit import (
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
from mneme.results.record import Estimate, Record, TooFew

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
