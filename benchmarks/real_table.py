"""Truth and predictors of the real bench from kept results: python benchmarks/real_table.py [--cells] [--kept FOLDER].

Needs no model. Prints how much each fine-tune changed, then every predictor on the cells of which all of them say something:
side effects apart from the target, knowledge apart from behaviour, families apart, each family judged by curves fitted on the
others and every interval made by drawing whole families.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from tables import markdown_table, write_section

from mneme.bench.real.judging import Predictor, RealCell
from mneme.bench.real.kept import half_measured, real_cells
from mneme.bench.real.scores import RealScores, all_predictors, real_scores
from mneme.results import Estimate

KEPT = Path(__file__).parent / "real"
SHOWN = ("accuracy", "F1", "precision", "recall", "AUROC", "direction", "Brier", "ECE", "rank correlation")
WITH_INTERVAL = ("accuracy", "F1")
"""Figures whose interval is printed; the others have one in the same way."""
HALF = "measuring half of the questions"
TITLE = "A real model: SmolLM2-135M-Instruct, its fine-tunes measured, every predictor on the same cells"


def measured_table(cells: list[RealCell]) -> str:
    """One line a fine-tune: cells by verdict, and the largest changes."""
    rows = []
    for name in dict.fromkeys(one.pair for one in cells):
        own = [one for one in cells if one.pair == name]
        counts = [sum(one.truth.verdict == verdict for one in own) for verdict in ("material", "grey", "immaterial")]
        largest = sorted(
            (one for one in own if one.truth.verdict == "material"), key=lambda one: -abs(one.truth.size.estimate.value)
        )
        told = ", ".join(f"{one.cell[1]} {one.truth.size.estimate.value:+.2f}" for one in largest[:4])
        rows.append([name, own[0].family, *map(str, counts), told])
    return markdown_table(["fine-tune", "family", "material", "grey", "immaterial", "largest (nats, or share)"], rows)


def cells_table(cells: list[RealCell]) -> str:
    """One line a cell."""
    rows = []
    for one in cells:
        size, share = one.truth.size.estimate, one.truth.share.estimate
        lost = f"{one.truth.flips.lost}/{one.truth.flips.gained}" if one.truth.flips else ""
        mark = "target" if one.target else ""
        interval = f"{size.value:+.3f} [{size.low:+.3f}, {size.high:+.3f}]"
        rows.append([one.pair, "/".join(one.cell), mark, interval, f"{100 * share.value:+.1f}", lost, one.truth.verdict])
    return markdown_table(["fine-tune", "cell", "", "change", "points", "lost/gained", "verdict"], rows)


def judged_tables(found: RealScores) -> str:
    """A table for each part, one line a predictor; last column: F1 of the first predictor less that of this one."""
    text = ""
    first = next(iter(found.outcomes))
    for part in dict.fromkeys(one.scenario for one in found.scores):
        own = [one for one in found.scores if one.scenario == part]
        text += f"\n**{part}**: {own[0].cells} clear cells, {own[0].material} material\n\n"
        rows = [
            [
                one.predictor,
                *(shown(one.figures.get(name), name) for name in SHOWN),
                shown(one.below.get("F1"), "F1", signed=True),
            ]
            for one in own
        ]
        text += markdown_table(["predictor", *SHOWN, f"F1 of {first} less this"], rows)
    return text


def alarms_line(found: RealScores) -> str:
    """Family-wise false alarms on the nulls."""
    told = ", ".join(f"{name} {alarmed} of {count}" for name, (alarmed, count) in found.alarms.items())
    return f"\nNull fine-tunes with a false alarm: {told}.\n"


def families_table(found: RealScores) -> str:
    """Accuracy and hits of each predictor in every family, judged by curves of the other families."""
    families = list(dict.fromkeys(one.family for one in found.cells))
    rows = []
    for name, outcome in found.outcomes.items():
        row = [name]
        for family in families:
            own = [i for i, one in enumerate(found.cells) if one.family == family and one.truth.verdict != "grey"]
            true = np.array([found.cells[i].truth.verdict == "material" for i in own], dtype=bool)
            said = outcome.probability[own] >= 0.5
            row.append(f"{np.mean(said == true):.2f}, {int((said & true).sum())}/{int(true.sum())}" if own else "")
        rows.append(row)
    heading = "\n**families apart**: accuracy, material cells found of those there are\n\n"
    return heading + markdown_table(["predictor", *families], rows)


def shown(found: Estimate | None, name: str, *, signed: bool = False) -> str:
    """A figure, with its interval where that is printed."""
    if found is None:
        return ""
    value = f"{found.value:+.2f}" if signed else f"{found.value:.2f}"
    return f"{value} [{found.low:.2f}, {found.high:.2f}]" if name in WITH_INTERVAL else value


def cost_table(folder: Path) -> str:
    """Seconds of CPU of one fine-tune: measuring it, reading its signals, each kind of audit."""
    measured = [json.loads(file.read_text("utf-8")) for file in (folder / "measured").glob("*.json")]
    slices: dict[str, list[float]] = {}
    for kept in measured:
        for place, told in kept.items():
            slices.setdefault(place, []).append(told["cpu_seconds"])
    rows = [[f"measuring {place}", f"{np.mean(spent):.0f}", str(len(spent)), ""] for place, spent in slices.items()]
    for place in [folder / "signals", folder / "arms", *sorted((folder / "audits").glob("*"))]:
        kept = [json.loads(file.read_text("utf-8")) for file in place.glob("*.json")]
        spent = [one.get("cpu_seconds", one["seconds"]) for one in kept]
        if kept:
            tokens = f"{np.mean([one['tokens'] for one in kept]):,.0f}"
            rows.append([place.name, f"{np.mean(spent):.0f}", str(len(spent)), tokens])
    return markdown_table(["what", "seconds of CPU, mean", "models", "tokens through both models"], rows)


def page(kept: Path, seed: int) -> str:
    """Everything, as the section of docs/benchmarks.md."""
    cells = real_cells(kept)
    text = measured_table(cells)
    if len({one.family for one in cells}) < 2:
        return f"{text}\n{cost_table(kept)}"
    predictors = all_predictors(kept, cells)
    pairs = {one.pair for one in cells}
    whole = {name: told for name, told in predictors.items() if set(told) == pairs}
    if len(whole) < len(predictors):
        partly = ", ".join(name for name in predictors if name not in whole)
        text += f"\n### Every predictor\n\nNot yet read of all fine-tunes: {partly}.\n"
    text += judged(cells, predictors, seed)
    if whole and len(whole) < len(predictors):
        text += "\n### Those that were read of all fine-tunes\n" + judged(cells, whole, seed)
    knew = real_cells(kept, known=True)
    text += f"\n### Of what the base knew\n\n{measured_table(knew)}{judged(knew, whole or predictors, seed)}"
    half_cells, told = half_measured(kept)
    half = real_scores(half_cells, {HALF: told}, seed=seed, baselines=False)
    text += f"\n### Half of the questions against the other half\n{judged_tables(half)}"
    return f"{text}\n### Cost\n\n{cost_table(kept)}"


def judged(cells: list[RealCell], predictors: dict[str, Predictor], seed: int) -> str:
    """All tables of some predictors on the cells of which all of them speak."""
    found = real_scores(cells, predictors, seed=seed)
    names = list(dict.fromkeys(one.pair for one in found.cells))
    heading = f"\n{len(names)} fine-tunes of {len({one.family for one in found.cells})} families: {', '.join(names)}.\n"
    return heading + judged_tables(found) + families_table(found) + alarms_line(found)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", action="store_true", help="print every cell and nothing else")
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of the results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    given = parser.parse_args()
    if given.cells:
        print(cells_table(real_cells(given.kept)))
        return
    text = page(given.kept, given.seed)
    print(text)
    if given.write:
        write_section("real", TITLE, "python benchmarks/real_table.py --write", text)


if __name__ == "__main__":
    main()
