"""Truth and predictors of the real bench from kept results: python benchmarks/real_table.py [--cells] [--seed 0].

Needs no model. Prints how much each fine-tune changed, then every predictor on the cells of which all of them say something:
families apart, side effects apart from the target, knowledge apart from behaviour.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tables import markdown_table

from mneme.bench.real.judging import (
    Predictor,
    RealCell,
    base_rate,
    covered,
    families_alarmed,
    judge,
    real_figures,
    target_alone,
)
from mneme.bench.real.kept import real_cells, signal_predictors, told_predictors

KEPT = Path(__file__).parent / "real"
COLUMNS = ("accuracy", "F1", "precision", "recall", "AUROC", "direction", "Brier", "ECE", "rank correlation")
PARTS: dict[str, Callable[[RealCell], bool]] = {
    "all cells": lambda _: True,
    "knowledge": lambda one: one.cell[0] == "knowledge",
    "knowledge, side effects": lambda one: one.cell[0] == "knowledge" and not one.target,
    "facts of relations": lambda one: one.cell[0] == "relation",
    "behaviours": lambda one: one.cell[0] == "behaviour",
    "refusals": lambda one: one.cell[0] == "refusal",
    "side effects": lambda one: not one.target,
}


def measured_table(cells: list[RealCell]) -> str:
    """One line a fine-tune: cells by verdict, and the largest changes."""
    rows = []
    for name in dict.fromkeys(one.pair for one in cells):
        own = [one for one in cells if one.pair == name]
        counts = [sum(one.truth.verdict == verdict for one in own) for verdict in ("material", "grey", "immaterial")]
        largest = sorted(
            (one for one in own if one.truth.verdict == "material"), key=lambda one: -abs(one.truth.size.estimate.value)
        )
        told = ", ".join(f"{one.cell[1]} {one.truth.size.estimate.value:+.2f}" for one in largest[:5])
        rows.append([name, own[0].family, *map(str, counts), told])
    return markdown_table(["fine-tune", "family", "material", "grey", "immaterial", "largest (nats, or share)"], rows)


def cells_table(cells: list[RealCell]) -> str:
    """One line a cell that changed or is grey."""
    rows = []
    for one in cells:
        size, share = one.truth.size.estimate, one.truth.share.estimate
        lost = f"{one.truth.flips.lost}/{one.truth.flips.gained}" if one.truth.flips else ""
        mark = "target" if one.target else ""
        interval = f"{size.value:+.3f} [{size.low:+.3f}, {size.high:+.3f}]"
        rows.append([one.pair, "/".join(one.cell), mark, interval, f"{100 * share.value:+.1f}", lost, one.truth.verdict])
    return markdown_table(["fine-tune", "cell", "", "change", "points", "lost/gained", "verdict"], rows)


def judged_tables(cells: list[RealCell], predictors: dict[str, Predictor], seed: int) -> str:
    """A table for each part, one line a predictor."""
    everything = predictors | {"target alone": target_alone(cells), "base rate": base_rate(cells)}
    common = covered(cells, list(everything.values()))
    outcomes = {name: judge(common, told) for name, told in everything.items()}
    text = ""
    for part, belongs in PARTS.items():
        where = np.array([belongs(one) for one in common], dtype=bool)
        material = sum(one.truth.verdict == "material" for one, here in zip(common, where, strict=True) if here)
        clear = sum(one.truth.verdict != "grey" for one, here in zip(common, where, strict=True) if here)
        rows = []
        for name, outcome in outcomes.items():
            found = real_figures(common, outcome, where, seed=seed)
            rows.append([name, *(f"{found[column].value:.3f}" if column in found else "" for column in COLUMNS)])
        text += f"\n{part}: {clear} cells, {material} material\n\n" + markdown_table(["predictor", *COLUMNS], rows)
    alarms = {name: families_alarmed(common, outcome) for name, outcome in outcomes.items()}
    told = ", ".join(f"{name} {alarmed} of {count}" for name, (alarmed, count) in alarms.items())
    return f"{text}\nNull fine-tunes with a false alarm: {told}.\n"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", action="store_true", help="print every cell")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    cells = real_cells(KEPT)
    print(measured_table(cells))
    if given.cells:
        print(cells_table(cells))
    predictors = signal_predictors(KEPT, cells) | told_predictors(KEPT, cells)
    predictors = {name: told for name, told in predictors.items() if told}
    if predictors:
        print(judged_tables(cells, predictors, given.seed))


if __name__ == "__main__":
    main()
