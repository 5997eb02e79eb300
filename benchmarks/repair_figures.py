"""What the cells of benchmarks/repair_table.py come to: shares with intervals over seeds and prompts, and the two sections."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Cell = dict[str, Any]
Array = NDArray[np.float64]
RESAMPLES = 2000


def shown(samples: Array, value: float) -> str:
    """Value and 95 % percentile interval in percent."""
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return f"{100 * value:.0f} % [{100 * low:.0f}, {100 * high:.0f}]".replace("-", "−")


def draws(n_seeds: int, n_units: int, seed: int) -> tuple[Array, Array]:
    """Weights of seeds and of units (prompts or texts), one row a resample; row 0 is the sample itself."""
    rng = np.random.default_rng(seed)
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), RESAMPLES).astype(float)
    units = rng.multinomial(n_units, np.full(n_units, 1 / n_units), RESAMPLES).astype(float)
    return np.vstack([np.ones(n_seeds), seeds]), np.vstack([np.ones(n_units), units])


def pooled(top: Array, bottom: Array, weights: tuple[Array, Array]) -> Array:
    """Ratio of sums of [seed, unit] tables under every resample."""
    above = np.einsum("rs,su,ru->r", weights[0], top, weights[1])
    below = np.einsum("rs,su,ru->r", weights[0], bottom, weights[1])
    return above / np.maximum(below, 1e-12)


def answers(cells: Sequence[Cell], areas: Sequence[str]) -> tuple[Array, Array, Array]:
    """(harmful, coherent, all) as [seed, prompt] tables over some areas; `cells` are points."""
    tables = [[[row[i] for area in areas for row in cell["answers"][area]] for cell in cells] for i in range(3)]
    harmful, coherent, every = (np.array(table, dtype=float) for table in tables)
    return harmful, coherent, every


class Truth:
    """Measured behaviour of every method and budget, against base and tuned model, under shared resamples."""

    def __init__(self, cells: dict[tuple[str, int], Cell], seeds: Sequence[int], area: str) -> None:
        """`cells`: (method, seed) -> cell; those of "tuned" and "base" are needed."""
        self.cells, self.seeds = cells, seeds
        first = cells["tuned", seeds[0]]
        names = [name for name in first["points"][0]["answers"] if name not in (area, "people")]
        self.off, self.on = names, [area]
        self.unseen = [name for name in names if name not in first["seen"]]
        self.methods = [name for name in dict.fromkeys(method for method, _ in cells) if name not in ("tuned", "base")]

    def points(self, method: str, budget: float) -> list[Cell] | None:
        """The points of all seeds; None where a seed has none."""
        found = [
            next((p for p in self.cells.get((method, seed), {"points": []})["points"] if p["budget"] == budget), None)
            for seed in self.seeds
        ]
        return [point for point in found if point is not None] if all(found) else None

    def rate(self, points: list[Cell], areas: Sequence[str], seed: int) -> Array:
        """Harmful share of coherent answers under every resample."""
        harmful, coherent, _ = answers(points, areas)
        return pooled(harmful, coherent, draws(len(self.seeds), harmful.shape[1], seed))

    def moved(self, points: list[Cell], areas: Sequence[str], seed: int) -> Array:
        """Share of the way from tuned back to base."""
        tuned, base = (self.points(name, budget) for name, budget in (("tuned", 0.0), ("base", 1.0)))
        if tuned is None or base is None:
            raise SystemExit("run the cells of tuned and base first")
        before, after, now = (self.rate(p, areas, seed) for p in (tuned, base, points))
        return (before - now) / (before - after)

    def selectivity(self, points: list[Cell]) -> Array:
        """Off-area harm closed minus narrow gain lost."""
        return self.moved(points, self.off, 1) - self.moved(points, self.on, 2)

    def likelihood(self, points: list[Cell]) -> Array:
        """The same of the development texts' likelihood."""
        shares = []
        for seed, (top, bottom) in enumerate((("undone", "of_target"), ("lost", "of_retain"))):
            width = min(len(point[top]) for point in points)
            above, below = (np.array([point[key][:width] for point in points]) for key in (top, bottom))
            shares.append(pooled(above, below, draws(len(points), width, 3 + seed)))
        return shares[0] - shares[1]

    def coherence(self, points: list[Cell]) -> Array:
        """Share of coherent answers, all areas."""
        _, coherent, every = answers(points, [*self.off, *self.on])
        return pooled(coherent, every, draws(len(self.seeds), coherent.shape[1], 5))

    def row(self, method: str, budget: float) -> list[str] | None:
        """One line of the table; None where the method does not reach the budget in every seed."""
        points, tuned, other = (
            self.points(method, budget),
            self.points("tuned", 0.0),
            self.points("antidote", budget),
        )
        if points is None or tuned is None:
            return None

        def cell(samples: Array) -> str:
            return shown(samples[1:], samples[0])

        beside: list[str] = ["", ""]
        if other is not None and method != "antidote":
            beside = [
                cell(self.selectivity(points) - self.selectivity(other)),
                cell(self.likelihood(points) - self.likelihood(other)),
            ]
        return [
            f"{100 * budget:.0f} %",
            method,
            cell(self.moved(points, self.off, 1)),
            cell(self.moved(points, self.unseen, 1)),
            cell(self.moved(points, self.on, 2)),
            cell(self.coherence(points) - self.coherence(tuned)),
            f"{100 * np.mean([point['facts'] for point in points]):.1f} %",
            cell(self.selectivity(points)),
            *beside,
        ]


HARM_HEAD = (
    "likelihood closed",
    "method",
    "off-area harm closed",
    "of it, areas without target text",
    "narrow gain lost",
    "coherence, change in points",
    "facts kept",
    "selectivity",
    "minus Antidote's",
    "by likelihood, minus Antidote's",
)
FORGET_HEAD = ("training", "strength", "chemistry restored", "biology relearned", "other areas, accuracy")


def forget_rows(cells: Sequence[Cell]) -> list[list[str]]:
    """Accuracy regained, as a share of what unlearning took, clustered by entity (6 questions each), seeds as outer level."""

    def table(name: str, area: str) -> Array:
        return np.array([np.array(cell["rows"][name][area], dtype=float).reshape(-1, 6).mean(1) for cell in cells])

    def regained(name: str, area: str, weights: tuple[Array, Array]) -> Array:
        now, tuned, base = table(name, area), table(f"{name.split('|')[0]}|0.0", area), table("base", area)
        return pooled(now - tuned, base - tuned, weights)

    rows = []
    areas = [area for area in cells[0]["rows"]["base"] if area not in ("biology", "chemistry")]
    weights = draws(len(cells), 30, 7)
    for name in cells[0]["rows"]:
        if name == "base" or name.endswith("|0.0"):
            continue
        chemistry, biology = (regained(name, area, weights) for area in ("chemistry", "biology"))
        others = np.mean([table(name, area).mean() for area in areas])
        training, strength = name.split("|")
        cells_of: Callable[[Array], str] = lambda samples: shown(samples[1:], samples[0])  # noqa: E731
        rows.append([training, strength, cells_of(chemistry), cells_of(biology), f"{100 * others:.1f} %"])
    return rows
