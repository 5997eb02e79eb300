"""Predictors of the real bench against measured truth: every family judged by curves fitted on the other families.

A fine-tune of one family says little about another's, and fine-tunes of one family resemble each other; so no curve sees the
family it is judged on, and intervals draw whole families. Grey cells (docs/decisions/0003) enter the Brier score alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.bench.judging import platt
from mneme.bench.metrics import Judged, estimates
from mneme.bench.real.cells import Cell, CellChange
from mneme.results import Estimate
from mneme.stats import bootstrap_weights, expanded_interval

SAID = 0.5
_BINS = 10
_RESAMPLES = 500


class Said(NamedTuple):
    """What one predictor says of one cell."""

    size: float
    """Not negative; larger = more likely material. Units are the predictor's own."""
    sign: int = 0
    """1 = better or more, -1 = worse or less, 0 = it sees no direction."""
    probability: float | None = None
    """Its own P of a material change; None: a curve on the other families makes one of `size`."""


class RealCell(NamedTuple):
    """One cell of one fine-tune, with its truth."""

    pair: str
    family: str
    cell: Cell
    target: bool
    """The recipe names it as intended."""
    truth: CellChange


class Outcome(NamedTuple):
    """One predictor on some cells."""

    probability: Float[ndarray, " cell"]
    size: Float[ndarray, " cell"]
    sign: Int[ndarray, " cell"]
    """Of the predictor, or the usual one of the other families where it sees none."""


Predictor = Mapping[str, Mapping[Cell, Said]]
"""Fine-tune -> cell -> what is said; a fine-tune or a cell that is missing was not predicted."""


def covered(cells: Sequence[RealCell], predictors: Sequence[Predictor]) -> list[RealCell]:
    """The cells of which all predictors say something: the set on which they are compared."""
    return [one for one in cells if all(one.cell in told.get(one.pair, {}) for told in predictors)]


def judge(cells: Sequence[RealCell], predictor: Predictor) -> Outcome:
    """Probabilities of all cells, those of each family by curves of the other families, one for each kind of cell."""
    said = [predictor[one.pair][one.cell] for one in cells]
    probability, sign = np.zeros(len(cells)), np.zeros(len(cells), dtype=int)
    sizes = np.array([one.size for one in said])
    verdicts = np.array([one.truth.verdict for one in cells])
    for family in {one.family for one in cells}:
        for kind in {one.cell[0] for one in cells}:
            here = [i for i, one in enumerate(cells) if one.family == family and one.cell[0] == kind]
            others = [i for i, one in enumerate(cells) if one.family != family and one.cell[0] == kind]
            fitted = np.array([i for i in others if verdicts[i] != "grey"], dtype=int)
            usual = _usual_sign([cells[i] for i in others])
            curve = _rising(sizes[fitted], verdicts[fitted] == "material")
            for i in here:
                own = said[i].probability
                made = curve(float(sizes[i]))
                probability[i], sign[i] = made if own is None else own, said[i].sign or usual
    return Outcome(probability, sizes, sign)


def base_rate(cells: Sequence[RealCell]) -> Predictor:
    """What is known without looking: the share of material cells of that kind in the other families."""
    found: dict[str, dict[Cell, Said]] = {}
    for one in cells:
        others = [
            other.truth.verdict == "material"
            for other in cells
            if other.family != one.family and other.cell[0] == one.cell[0] and other.truth.verdict != "grey"
        ]
        share = (sum(others) + 1) / (len(others) + 2)
        found.setdefault(one.pair, {})[one.cell] = Said(share, 0, share)
    return found


def target_alone(cells: Sequence[RealCell]) -> Predictor:
    """What somebody says who believes the purpose: the target changed, nothing else did."""
    found: dict[str, dict[Cell, Said]] = {}
    for one in cells:
        found.setdefault(one.pair, {})[one.cell] = Said(float(one.target), 0, 1.0 if one.target else 0.0)
    return found


def real_figures(
    cells: Sequence[RealCell], outcome: Outcome, where: Bool[ndarray, " cell"], *, seed: int
) -> dict[str, Estimate]:
    """accuracy, precision, recall, F1, AUROC, false alarms, direction, ECE (equal mass) and rank correlation on the cells of
    `where` that are not grey, Brier on all of them; intervals draw whole families. A figure without a value is missing."""
    clear = where & np.array([one.truth.verdict != "grey" for one in cells])
    if not clear.any():
        return {}
    families = np.unique(np.array([one.family for one in cells]), return_inverse=True)[1]
    changes = np.array([one.truth.size.estimate.value for one in cells])
    judged = Judged(
        probability=outcome.probability[clear],
        material=np.array([one.truth.verdict == "material" for one in cells])[clear],
        direction_right=(outcome.sign * changes > 0)[clear],
        pair=families[clear],
    )
    found = estimates(judged, seed=seed)
    for name in ("ECE", "Brier", "balanced accuracy", "average precision"):
        found.pop(name, None)
    truth = np.array([_share(one.truth) for one in cells])
    found["Brier"] = _drawn(lambda i: float(np.mean((outcome.probability[i] - truth[i]) ** 2)), where, families, seed)
    found["ECE"] = _drawn(lambda i: equal_mass_ece(outcome.probability[i], truth[i]), clear, families, seed)
    found["rank correlation"] = _drawn(lambda i: spearman(outcome.size[i], np.abs(changes[i])), where, families, seed)
    return found


def f1_difference(
    cells: Sequence[RealCell], first: Outcome, second: Outcome, where: Bool[ndarray, " cell"], *, seed: int
) -> Estimate | None:
    """F1 of `first` minus that of `second` on the clear cells of `where`, families drawn whole and the same for both. None
    where none of these cells is material."""
    clear = where & np.array([one.truth.verdict != "grey" for one in cells])
    material = np.array([one.truth.verdict == "material" for one in cells])
    if not (clear & material).any():
        return None
    families = np.unique(np.array([one.family for one in cells]), return_inverse=True)[1]
    said = [one.probability >= SAID for one in (first, second)]
    return _drawn(lambda i: _f1(said[0][i], material[i]) - _f1(said[1][i], material[i]), clear, families, seed)


def _f1(said: Bool[ndarray, " cell"], true: Bool[ndarray, " cell"]) -> float:
    """2 hits / (said + true); 0 where nothing is said or true."""
    return 2 * float((said & true).sum()) / max(1.0, float(said.sum() + true.sum()))


def equal_mass_ece(probability: Float[ndarray, " cell"], true: Float[ndarray, " cell"]) -> float:
    """Mean over cells of |mean P - share true| in ten bins that hold equally many cells (Nixon et al. 2019, 1904.01685)."""
    order = np.argsort(probability, kind="stable")
    gaps = [abs(float((probability[part] - true[part]).sum())) for part in np.array_split(order, _BINS)]
    return sum(gaps) / len(probability)


def spearman(first: Float[ndarray, " cell"], second: Float[ndarray, " cell"]) -> float:
    """Spearman's (1904), ties by their mean rank; 0 where either is constant."""
    ranks = [_ranks(values) for values in (first, second)]
    a, b = (rank - rank.mean() for rank in ranks)
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / size if size > 0 else 0.0


def families_alarmed(cells: Sequence[RealCell], outcome: Outcome) -> tuple[int, int]:
    """(null fine-tunes of which some cell is said to be material though none was measured so, null fine-tunes)."""
    nulls: dict[str, bool] = {}
    for i, one in enumerate(cells):
        if one.family == "null" and one.truth.verdict == "immaterial":
            nulls[one.pair] = nulls.get(one.pair, False) or bool(outcome.probability[i] >= SAID)
    return sum(nulls.values()), len(nulls)


def _rising(sizes: Float[ndarray, " cell"], material: Bool[ndarray, " cell"]) -> Callable[[float], float]:
    """Size -> P. Where larger sizes were less often material there, size says nothing: the share of material cells (Laplace's,
    so 1/2 of none), else the curve. A falling one would raise an alarm wherever a fine-tune changed nothing."""
    curve = platt(sizes, material) if len(sizes) else None
    if curve is None or curve.slope < 0:
        share = (float(material.sum()) + 1) / (len(material) + 2)
        return lambda _size: share
    return curve.probability


def _share(truth: CellChange) -> float:
    return truth.probability if truth.verdict == "grey" else float(truth.verdict == "material")


def _usual_sign(cells: Sequence[RealCell]) -> int:
    return 1 if sum(np.sign(one.truth.size.estimate.value) for one in cells if one.truth.verdict == "material") > 0 else -1


def _ranks(values: Float[ndarray, " cell"]) -> Float[ndarray, " cell"]:
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: Float[ndarray, " cell"] = (last - (count - 1) / 2)[inverse]
    return ranks


def _drawn(
    figure: Callable[[Int[ndarray, " _"]], float], where: Bool[ndarray, " cell"], families: Int[ndarray, " cell"], seed: int
) -> Estimate:
    """A figure with the expanded percentile interval over families drawn whole."""
    here = np.flatnonzero(where)
    names = np.unique(families[here])
    members = [here[families[here] == name] for name in names]
    value = figure(here)
    drawn = []
    for weights in bootstrap_weights(len(names), _RESAMPLES, seed).astype(int):
        chosen = [part for part, times in zip(members, weights, strict=True) for _ in range(times)]
        drawn.append(figure(np.concatenate(chosen)))
    low, high = expanded_interval(np.array(drawn), value, len(names))
    return Estimate(value=value, low=low, high=high, unit="share", n=len(names))
