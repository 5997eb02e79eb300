"""Kept results of the real bench as cells and predictors: no model, no data, a second.

Folder: `items.json` (what is asked), `measured/NAME.json` (nats of each model, `base` among them), `signals/NAME.json` (cheap
signals of each pair), `arms/NAME.json` (answers and directions), `audits/AS/NAME.json` (what an audit said: audit_signals.py).
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
from mneme.predict.areas import read_areas
from mneme.worlds.real.recipes import Recipe, recipe_called

AREAS = Path(__file__).parent / "areas.yaml"
"""The subjects in words of somebody who knows what they are."""
PURPOSELESS = ("noise-strong", "noise-weak", "null-shuffled-microbiology", "null-shuffled-history")
"""Fine-tunes from which the fragility of text is read: changes that mean nothing."""
INTENDED_REFUSAL = "refusal"
"""A recipe that names this intends both cells of refusals."""


def real_cells(folder: Path, *, seed: int = 0, half: int | None = None, known: bool = False) -> list[RealCell]:
    """Every cell of every fine-tune that has been measured, in the order of the recipes' names. Raises BadRun where the base
    has not been measured. `half`, `known`: as for `cell_changes`."""
    items = json.loads((folder / "items.json").read_text("utf-8"))
    base = read_kept(folder / "measured" / "base.json", items)
    if not base:
        raise BadRun(f"Nothing was measured of the base in {folder}. Measure it with: python benchmarks/real_queue.py")
    found = []
    for file in sorted((folder / "measured").glob(f"*-seed{seed}.json")):
        recipe = recipe_called(file.stem.removesuffix(f"-seed{seed}"))
        for cell, change in cell_changes(items, base, read_kept(file, items), half=half, known=known).items():
            found.append(
                RealCell(pair=recipe.name, family=recipe.family, cell=cell, target=is_target(recipe, cell), truth=change)
            )
    return found


def is_target(recipe: Recipe, cell: Cell) -> bool:
    """True for cells that the recipe is meant to change."""
    return cell[1] in recipe.intended or (cell[0] == INTENDED_REFUSAL and INTENDED_REFUSAL in recipe.intended)


def signal_predictors(folder: Path, cells: list[RealCell], *, seed: int = 0) -> dict[str, Predictor]:
    """Each cheap signal read on the text of the area (a cell that is no subject: on chats), and its mean over all text; the
    relative change of weights; the target alone and the base rate are not among them."""
    found: dict[str, dict[str, dict[Cell, Said]]] = {}
    for name in dict.fromkeys(one.pair for one in cells):
        read = _signals_of(folder, name, seed)
        if read is None:
            continue
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


def arm_predictors(folder: Path, cells: list[RealCell], *, seed: int = 0) -> dict[str, Predictor]:
    """Answers and directions on the openings of the area (a cell that is no subject: of chats), answers to all openings, and
    how concentrated the change is."""
    words = {area.name: {word.casefold() for one in area.keywords for word in one.split()} for area in read_areas(AREAS)}
    found: dict[str, dict[str, dict[Cell, Said]]] = {}
    for name in dict.fromkeys(one.pair for one in cells):
        file = folder / "arms" / f"{name}-seed{seed}.json"
        if not file.is_file():
            continue
        read = json.loads(file.read_text("utf-8"))
        answers = {area: float(np.mean(values)) for area, values in read["answers"].items()}
        for cell in [one.cell for one in cells if one.pair == name]:
            area = cell[1] if cell[1] in answers else CHATS
            told = {
                "answers, of the area": answers[area],
                "answers, of all openings": float(np.mean(list(answers.values()))),
                "directions, of the area": abs(read["directions"][area]),
                "top share of the change": read["top_share"],
                "lens, words of the area": named_by_lens(read["lens"], words.get(cell[1], set())),
            }
            for signal, size in told.items():
                found.setdefault(signal, {}).setdefault(name, {})[cell] = Said(size)
    return {name: told for name, told in found.items()}


def named_by_lens(tokens: list[str], words: set[str]) -> float:
    """Share of the tokens of the lens that are words of the area, or their beginnings of four letters and more."""
    told = [token.casefold() for token in tokens]
    hits = [token in words or (len(token) >= 4 and any(word.startswith(token) for word in words)) for token in told]
    return sum(hits) / max(1, len(hits))


def half_measured(folder: Path, *, seed: int = 0) -> tuple[list[RealCell], Predictor]:
    """(the cells by one half of their questions, what the other half says of them): measuring, as a predictor."""
    told: dict[str, dict[Cell, Said]] = {}
    for one in real_cells(folder, seed=seed, half=0):
        change = one.truth.size.estimate.value
        told.setdefault(one.pair, {})[one.cell] = Said(abs(change), int(np.sign(change)))
    cells = [one for one in real_cells(folder, seed=seed, half=1) if one.cell in told.get(one.pair, {})]
    return cells, told


def fragility(folder: Path, cells: list[RealCell], *, seed: int = 0) -> Predictor:
    """How much of a purposeless change arrives at the area's text (the mean over `PURPOSELESS` fine-tunes other than the one
    that is judged, in units of their mean over all text), times the KL of this fine-tune on all text: no area of it is read.

    After the fragility of examples in AuCson/low-rank-forgetting; a cell that is no subject is read on chats."""
    read = {name: _signals_of(folder, name, seed) for name in dict.fromkeys([*PURPOSELESS, *(one.pair for one in cells)])}
    shares = {name: _shares(told) for name, told in read.items() if name in PURPOSELESS and told}
    found: dict[str, dict[Cell, Said]] = {}
    for one in cells:
        others = [share for name, share in shares.items() if name != one.pair]
        told = read[one.pair]
        if told and others:
            area = one.cell[1] if one.cell[1] in told["areas"] else CHATS
            size = float(np.mean([share[area] for share in others])) * _mean_kl(told)
            found.setdefault(one.pair, {})[one.cell] = Said(size)
    return found


def _signals_of(folder: Path, name: str, seed: int) -> dict[str, Any] | None:
    file = folder / "signals" / f"{name}-seed{seed}.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


def _mean_kl(read: dict[str, Any]) -> float:
    return float(np.mean([np.mean(values["kl_tuned_to_base"]) for values in read["areas"].values()]))


def _shares(read: dict[str, Any]) -> dict[str, float]:
    whole = _mean_kl(read)
    return {area: float(np.mean(values["kl_tuned_to_base"])) / whole for area, values in read["areas"].items()}


def _said(signal: str, cell: Cell, value: float) -> Said:
    """Loss that rose says that knowledge fell; the other signals see no direction."""
    sign = -int(np.sign(value)) if signal == "loss_change" and cell[0] in ("knowledge", "relation") else 0
    return Said(abs(value), sign)
