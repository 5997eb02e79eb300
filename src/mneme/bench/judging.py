"""From raw scores to probabilities, each world judged by calibrations fitted on the others, and from those to figures."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from mneme.bench.metrics import Judged, differences, estimates
from mneme.bench.pairs import SCENARIOS
from mneme.predict.calibration import Curve, curve_probability, fit_curve
from mneme.results.bench import BenchCell, BenchPair, FittedCurve, Score

MNEME = "mneme"
PRIOR = {"knowledge": 0.02, "behaviour_more": 0.05, "behaviour_less": 0.3}
"""Where the audit's curves are expected before any organism is seen (`fit_curve`)."""


_PART = {"capability": "facts asked", "statement": "facts told", "behaviour": "advice"}
PARTS = (*_PART.values(), "side effects")
"""Parts of the cells that figures are given of beside the scenarios."""


def parts_of_cell(cell: BenchCell) -> list[str]:
    """The parts that a cell is of. A side effect is whatever the fine-tune was not for."""
    return [_PART[cell.kind], *([] if cell.intended else ["side effects"])]


class Placed(NamedTuple):
    """A cell with the number of its pair."""

    pair: int
    world: str
    scenario: str
    cell: BenchCell


def placed_cells(pairs: Sequence[BenchPair]) -> list[Placed]:
    """All cells of all pairs, in order."""
    return [Placed(i, pair.world, pair.scenario, cell) for i, pair in enumerate(pairs) for cell in pair.cells]


def predictors_of(pairs: Sequence[BenchPair]) -> list[str]:
    """Names of the predictors, in the order in which they were written down."""
    return list(dict.fromkeys(name for pair in pairs for cell in pair.cells for name in cell.scores))


def curve_name(cell: BenchCell) -> str:
    """Which of the audit's curves a cell is for: it tells a behaviour that became likelier from one that became rarer."""
    if cell.kind != "behaviour":
        return "knowledge"
    return "behaviour_more" if cell.scores[MNEME].sign > 0 else "behaviour_less"


class Logistic(NamedTuple):
    """P = sigmoid(offset + slope ln size), sizes below `least` taken as `least`."""

    offset: float
    slope: float
    least: float

    def probability(self, size: float) -> float:
        """P(material change) of one cell."""
        z = self.offset + self.slope * math.log(max(size, self.least))
        return 1 / (1 + math.exp(-min(max(z, -40.0), 40.0)))


def platt(sizes: Float[ndarray, " cell"], material: Bool[ndarray, " cell"]) -> Logistic:
    """Logistic regression on ln size by maximum likelihood with Platt's (1999) smoothed targets (Newton's method, a ridge of
    0.001 on standardised columns). Sizes of 0 count as a tenth of the smallest positive one."""
    positive = sizes[sizes > 0]
    least = float(positive.min()) / 10 if len(positive) else 1e-3
    x = np.log(np.maximum(sizes, least))
    n_true, n_false = int(material.sum()), int((~material).sum())
    target = np.where(material, (n_true + 1) / (n_true + 2), 1 / (n_false + 2))
    centre, spread = float(x.mean()), float(x.std()) or 1.0
    columns = np.stack([np.ones(len(x)), (x - centre) / spread], axis=1)
    beta = np.zeros(2)
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(columns @ beta, -40, 40)))
        gradient = columns.T @ (p - target) + 1e-3 * beta
        hessian = (columns * (p * (1 - p))[:, None]).T @ columns + 1e-3 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        beta -= np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-9:
            break
    slope = float(beta[1]) / spread
    return Logistic(float(beta[0]) - slope * centre, slope, least)


def fit_audit(cells: Sequence[BenchCell]) -> dict[str, Curve]:
    """The audit's three curves, fitted on these cells; the prior alone for a curve without cells."""
    curves = {}
    for name, prior in PRIOR.items():
        own = [cell for cell in cells if curve_name(cell) == name and not cell.grey]
        sizes = np.array([cell.scores[MNEME].size for cell in own])
        material = np.array([cell.material for cell in own], dtype=bool)
        curves[name] = fit_curve(sizes, material, prior_midpoint=prior) if own else Curve(prior, 3.0)
    return curves


def fit_baseline(cells: Sequence[BenchCell], predictor: str) -> dict[str, Logistic]:
    """A baseline's curves, one for knowledge and one for behaviour."""
    curves = {}
    for kind in ("knowledge", "behaviour"):
        own = [cell for cell in cells if kind_of(cell) == kind and not cell.grey]
        if own:
            sizes = np.array([cell.scores[predictor].size for cell in own])
            curves[kind] = platt(sizes, np.array([cell.material for cell in own], dtype=bool))
    return curves


def kind_of(cell: BenchCell) -> str:
    """`knowledge`, asked either way, or `behaviour`."""
    return "behaviour" if cell.kind == "behaviour" else "knowledge"


def usual_direction(cells: Sequence[BenchCell]) -> dict[str, int]:
    """The commoner sign of the material changes of each kind (-1 where there is none): what a predictor that sees no direction
    says."""
    return {
        kind: 1 if sum(np.sign(cell.change) for cell in cells if kind_of(cell) == kind and cell.material) > 0 else -1
        for kind in ("knowledge", "behaviour")
    }


def judged(cells: Sequence[Placed], predictor: str) -> tuple[Judged, list[FittedCurve]]:
    """The predictor on all cells, those of each world with calibrations from the other worlds alone."""
    probability = np.zeros(len(cells))
    sign = np.zeros(len(cells))
    curves: list[FittedCurve] = []
    for world in dict.fromkeys(placed.world for placed in cells):
        others = [placed.cell for placed in cells if placed.world != world]
        here = [i for i, placed in enumerate(cells) if placed.world == world]
        usual = usual_direction(others)
        for i in here:
            score = cells[i].cell.scores[predictor]
            sign[i] = score.sign or usual[kind_of(cells[i].cell)]
        if predictor == MNEME:
            audit = fit_audit(others)
            for i in here:
                cell = cells[i].cell
                probability[i] = curve_probability(cell.scores[predictor].size, audit[curve_name(cell)])
            curves += [
                FittedCurve(judged=world, curve=name, midpoint=curve.midpoint, slope=curve.slope)
                for name, curve in audit.items()
            ]
            continue
        said = [cells[i].cell.scores[predictor].probability for i in here]
        baseline = fit_baseline(others, predictor) if None in said else {}
        for i, own in zip(here, said, strict=True):
            cell = cells[i].cell
            probability[i] = own if own is not None else baseline[kind_of(cell)].probability(cell.scores[predictor].size)
    return (
        Judged(
            probability=probability,
            material=np.array([placed.cell.material for placed in cells], dtype=bool),
            direction_right=np.array([s * placed.cell.change > 0 for s, placed in zip(sign, cells, strict=True)], dtype=bool),
            pair=np.array([placed.pair for placed in cells]),
            beyond=np.array([placed.cell.beyond if placed.cell.grey else math.nan for placed in cells]),
        ),
        curves,
    )


def score_all(pairs: Sequence[BenchPair], *, seed: int) -> tuple[list[Score], list[FittedCurve]]:
    """Every predictor on every scenario and part of the cells that there is, and on all; curves are always fitted on all."""
    cells = placed_cells(pairs)
    everything = {predictor: judged(cells, predictor) for predictor in predictors_of(pairs)}
    scores: list[Score] = []
    for scenario in ("all", *SCENARIOS, *PARTS):
        where = np.array([scenario in ("all", placed.scenario, *parts_of_cell(placed.cell)) for placed in cells], dtype=bool)
        if not any(not placed.cell.grey for placed, here in zip(cells, where, strict=True) if here):
            continue
        mine = everything[MNEME][0].within(where)
        for predictor, (whole, _) in everything.items():
            own = whole.within(where)
            scores.append(
                Score(
                    predictor=predictor,
                    scenario=scenario,
                    cells=int(own.clear.sum()),
                    material=int(own.material.sum()),
                    pairs=len(np.unique(own.pair)),
                    figures=estimates(own, seed=seed),
                    below={} if predictor == MNEME else differences(mine, own, seed=seed),
                )
            )
    return scores, everything[MNEME][1]
