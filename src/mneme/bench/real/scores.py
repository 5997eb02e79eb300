"""Every predictor of the real bench on every part of the cells: what its tables are made of."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from mneme.bench.real.audit_signals import audit_predictors
from mneme.bench.real.judging import (
    Outcome,
    Predictor,
    RealCell,
    base_rate,
    covered,
    f1_difference,
    families_alarmed,
    judge,
    real_figures,
    target_alone,
)
from mneme.bench.real.kept import arm_predictors, fragility, signal_predictors
from mneme.results.bench import RealBench, Score

PARTS: dict[str, Callable[[RealCell], bool]] = {
    "all cells": lambda _: True,
    "side effects": lambda one: not one.target,
    "knowledge": lambda one: one.cell[0] == "knowledge",
    "knowledge, side effects": lambda one: one.cell[0] == "knowledge" and not one.target,
    "facts of relations": lambda one: one.cell[0] == "relation",
    "behaviours": lambda one: one.cell[0] == "behaviour",
    "refusals": lambda one: one.cell[0] == "refusal",
}


class RealScores(NamedTuple):
    """All predictors on the cells of which all of them say something."""

    cells: list[RealCell]
    outcomes: dict[str, Outcome]
    scores: list[Score]
    """`scenario` is the part; `cells` are clear ones; `below` holds F1 of the first predictor less that of this one."""
    alarms: dict[str, tuple[int, int]]
    """Predictor -> (null fine-tunes with a false alarm, null fine-tunes)."""


def all_predictors(folder: Path, cells: list[RealCell], *, seed: int = 0) -> dict[str, Predictor]:
    """Every predictor of which something is kept in `folder`, audits first."""
    found = audit_predictors(folder, cells, seed=seed) | signal_predictors(folder, cells, seed=seed)
    found |= arm_predictors(folder, cells, seed=seed)
    found["fragility of the text x KL"] = fragility(folder, cells, seed=seed)
    return {name: told for name, told in found.items() if told}


def real_scores(
    cells: list[RealCell], predictors: Mapping[str, Predictor], *, seed: int, baselines: bool = True
) -> RealScores:
    """Judge `predictors`, and with `baselines` the target alone and the base rate, on the cells that all of them speak of."""
    everything = dict(predictors)
    if baselines:
        everything |= {"target alone": target_alone(cells), "base rate": base_rate(cells)}
    common = covered(cells, list(everything.values()))
    outcomes = {name: judge(common, told) for name, told in everything.items()}
    scores: list[Score] = []
    for part, belongs in PARTS.items():
        where = np.array([belongs(one) for one in common], dtype=bool)
        if where.any():
            scores += _part_scores(part, common, outcomes, where, seed)
    alarms = {name: families_alarmed(common, outcome) for name, outcome in outcomes.items()}
    return RealScores(common, outcomes, scores, alarms)


def real_record(found: RealScores) -> RealBench:
    """What `mneme bench --real` writes."""
    names = list(dict.fromkeys(one.pair for one in found.cells))
    return RealBench(fine_tunes=names, scores=found.scores, alarms=found.alarms)


def _part_scores(
    part: str, cells: list[RealCell], outcomes: dict[str, Outcome], where: Bool[ndarray, " cell"], seed: int
) -> list[Score]:
    here = [one for one, belongs in zip(cells, where, strict=True) if belongs]
    clear = [one.truth.verdict for one in here if one.truth.verdict != "grey"]
    pairs = len({one.pair for one in here})
    first = next(iter(outcomes))
    scores = []
    for name, outcome in outcomes.items():
        ahead = None if name == first else f1_difference(cells, outcomes[first], outcome, where, seed=seed)
        found = real_figures(cells, outcome, where, seed=seed)
        scores.append(
            Score(
                predictor=name,
                scenario=part,
                cells=len(clear),
                material=clear.count("material"),
                pairs=pairs,
                figures=found,
                below={} if ahead is None else {"F1": ahead},
            )
        )
    return scores
