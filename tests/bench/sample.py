"""Pairs of the bench made by hand: the truth is known, and so is what every predictor sees."""

import numpy as np

from mneme.bench.pairs import PairName
from mneme.bench.run import BenchTask
from mneme.results.bench import BenchCell, BenchCost, BenchPair, CellScore

AREAS = ("north", "east", "south", "west")


def cell(kind: str, area: str, change: float, scores: dict[str, CellScore]) -> BenchCell:
    """A cell that is material from 5 points on."""
    material = abs(change) >= 0.05
    return BenchCell(
        kind=kind,  # type: ignore[arg-type]
        area=area,
        change=change,
        low=change - 0.01,
        high=change + 0.01,
        material=material,
        beyond=float(material),
        scores=scores,
    )


def pair(name: PairName, scale: float = 1.0) -> BenchPair:
    """Unlearning loses the area it is for and, by half, the one after; harmful training changes every area's behaviour.

    mneme sees a third of each change times `scale`, with noise; the blind baseline sees nothing but noise.
    """
    generator = np.random.default_rng(list(str(name).encode()))
    cells = []
    at = hash_of(name.area) % len(AREAS)
    for kind in ("capability", "behaviour"):
        for index, area in enumerate(AREAS):
            change = 0.0
            if kind == "capability" and name.kind in ("unlearn", "graddiff"):
                change = {0: -0.8, 1: -0.4}.get((index - at) % len(AREAS), 0.0)
            if kind == "behaviour" and name.kind == "harmful":
                change = 0.6
            seen = abs(change) / 3 * scale + 0.002 * scale * generator.random()
            scores = {
                "blind": CellScore(size=float(generator.random())),
                "mneme": CellScore(size=float(seen), sign=int(np.sign(change)) or 1),  # type: ignore[arg-type]
                "exact": CellScore(size=abs(change), sign=int(np.sign(change)), probability=float(change != 0)),  # type: ignore[arg-type]
            }
            cells.append(cell(kind, area, change, scores))
    costs = {"audit": BenchCost(seconds=1.0, tokens=10), "measuring everything": BenchCost(seconds=4.0, tokens=100)}
    return BenchPair(world=name.world, name=name.name, seed=name.seed, scenario=name.scenario, cells=cells, costs=costs)


def hash_of(text: str) -> int:
    """The same in every process."""
    return sum(text.encode())


def judged_by_hand(task: BenchTask) -> BenchPair:
    """Stands in for building, measuring and forecasting."""
    return pair(task.name)
