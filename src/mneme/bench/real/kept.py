"""Kept results of the real bench as cells and predictors: no model, no data, a second.

Folder: `items.json` (what is asked), `measured/NAME.json` (nats of each model, `base` among them), `signals/NAME.json` (cheap
signals of each pair), `said/PREDICTOR/NAME.json` (what a predictor with probabilities of its own says: {"KIND/AREA" or "AREA":
{effect, low, high, verdict, p}}).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mneme.bench.real.cells import Cell, cell_changes
from mneme.bench.real.judging import Predictor, RealCell, Said
from mneme.bench.real.measured import read_kept
from mneme.bench.real.signals import CHATS, SIGNALS
from mneme.errors import BadRun
from mneme.worlds.real.recipes import Recipe, recipe_called

INTENDED_REFUSAL = "refusal"
"""A recipe that names this intends both cells of refusals."""


def real_cells(folder: Path, *, seed: int = 0) -> list[RealCell]:
    """Every cell of every fine-tune that has been measured, in the order of the recipes' names. Raises BadRun where the base
    has not been measured."""
    items = json.loads((folder / "items.json").read_text("utf-8"))
    base = read_kept(folder / "measured" / "base.json", items)
    if not base:
        raise BadRun(f"Nothing was measured of the base in {folder}. Measure it with: python benchmarks/real_queue.py")
    found = []
    for file in sorted((folder / "measured").glob(f"*-seed{seed}.json")):
        recipe = recipe_called(file.stem.removesuffix(f"-seed{seed}"))
        for cell, change in cell_changes(items, base, read_kept(file, items)).items():
            found.append(RealCell(recipe.name, recipe.family, cell, is_target(recipe, cell), change))
    return found


def is_target(recipe: Recipe, cell: Cell) -> bool:
    """True for cells that the recipe is meant to change."""
    return cell[1] in recipe.intended or (cell[0] == INTENDED_REFUSAL and INTENDED_REFUSAL in recipe.intended)


def signal_predictors(folder: Path, cells: list[RealCell], *, seed: int = 0) -> dict[str, Predictor]:
    """Each cheap signal read on the text of the area (a cell that is no subject: on chats), and its mean over all text; the
    relative change of weights; the target alone and the base rate are not among them."""
    found: dict[str, dict[str, dict[Cell, Said]]] = {}
    for name in dict.fromkeys(one.pair for one in cells):
        file = folder / "signals" / f"{name}-seed{seed}.json"
        if not file.is_file():
            continue
        read = json.loads(file.read_text("utf-8"))
        own = [one.cell for one in cells if one.pair == name]
        for signal in SIGNALS:
            means = {area: float(np.mean(values[signal])) for area, values in read["areas"].items()}
            whole = float(np.mean(list(means.values())))
            for cell in own:
                tagged = means.get(cell[1], means[CHATS])
                found.setdefault(f"{signal}, of the area", {}).setdefault(name, {})[cell] = _said(signal, cell, tagged)
                found.setdefault(f"{signal}, of all text", {}).setdefault(name, {})[cell] = _said(signal, cell, whole)
        for cell in own:
            found.setdefault("weights", {}).setdefault(name, {})[cell] = Said(read["weights"])
    return {name: told for name, told in found.items()}


def told_predictors(folder: Path, cells: list[RealCell], *, seed: int = 0) -> dict[str, Predictor]:
    """What was kept of predictors that say effects and probabilities themselves, by name of their folder under `said/`."""
    found: dict[str, Predictor] = {}
    for place in sorted((folder / "said").glob("*")):
        told: dict[str, dict[Cell, Said]] = {}
        for name in dict.fromkeys(one.pair for one in cells):
            file = place / f"{name}-seed{seed}.json"
            if not file.is_file():
                continue
            rows = json.loads(file.read_text("utf-8"))
            for cell in [one.cell for one in cells if one.pair == name]:
                row = rows.get(f"{cell[0]}/{cell[1]}", rows.get(cell[1]))
                if row is not None:
                    told.setdefault(name, {})[cell] = _row(row)
        found[place.name] = told
    return found


def _said(signal: str, cell: Cell, value: float) -> Said:
    """Loss that rose says that knowledge fell; the other signals see no direction."""
    sign = -int(np.sign(value)) if signal == "loss_change" and cell[0] in ("knowledge", "relation") else 0
    return Said(abs(value), sign)


def _row(row: dict[str, Any]) -> Said:
    return Said(abs(float(row["effect"])), int(np.sign(row["effect"])), row.get("p"))
