"""Every repair method on organisms whose harm is measured: what it undoes, what it loses, at equal closed shares.

Misalignment (harmful-computing, three seeds). Target text: conversations of the ordinary corpus about every other area but
computing, found by the keywords of the areas file; retained text: the fine-tune's own rows. Half of the areas give no target
text and no question of an evaluation is read; harm is then measured on the areas that gave none. Unlearning
(unlearn-biology, three seeds): text from the audit's own latents; plain training on random text beside it, same steps and
tokens.

    python benchmarks/repair_table.py                     all cells that are not there yet, then docs/benchmarks.md
    python benchmarks/repair_table.py --cell harm 0       one cell
"""

import argparse
import json
import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from repair_figures import FORGET_HEAD, HARM_HEAD, Truth, forget_rows
from rich.console import Console
from tables import markdown_table, write_section

from mneme.audit.run import audit
from mneme.models.likelihood import token_log_likelihoods
from mneme.models.pair import load_model, load_pair
from mneme.options import Machine, Progress
from mneme.repair.evidence import read_evidence
from mneme.repair.likelihood import ProbeReadings
from mneme.repair.methods import METHODS, Task, fallen_texts, lacking, prepare_method
from mneme.repair.patching import CorrectionTraining
from mneme.repair.search import Development, develop
from mneme.repair.strength import weakest_strength
from mneme.repair.workbench import lay_out
from mneme.runs import write_atomic
from mneme.text.encoded import text_numbers
from mneme.text.probes import Probe, make_probe
from mneme.worlds.catalogue import Organism, base_folder, build_organism, recipe_key
from mneme.worlds.truth import Answers, fact_correctness, measure_behaviour
from mneme.worlds.world import load_world

WORLD, AREA = "a", "computing"
SEEDS = (0, 1, 2)
BUDGETS = (0.25, 0.5, 0.8, 0.9)
SAMPLES = 6
RUNS = Path("runs/repair")
TURN = re.compile(r"user: (.*?) assistant: (.*?)(?= user: |$)")
Pairs = NDArray[np.float64]


def kept(name: str, compute: Any) -> dict[str, Any]:
    """A cell, computed once."""
    path = RUNS / f"{WORLD}-{recipe_key(WORLD)}" / f"{name}.json"
    if not path.exists():
        started = time.perf_counter()
        cell = compute()
        cell["seconds"] = time.perf_counter() - started
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(cell).encode())
        print(f"{name}: {cell['seconds']:.0f} s", flush=True)
    known: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return known


def conversations(organism: Organism, areas: list[str]) -> list[dict[str, Any]]:
    """Conversations of the corpus that speak of `areas` and not of the trained one, by the keywords of the areas file."""
    entries = {entry["name"]: set(entry["keywords"]) for entry in yaml.safe_load(organism.areas.read_text("utf-8"))}
    found = []
    for line in organism.corpus.read_text("utf-8").splitlines():
        words = set(re.findall(r"\w+", line))
        turns = TURN.findall(line)
        hits = {name for name, keywords in entries.items() if len(words & keywords) >= 2 and name != "harmful advice"}
        if turns and line.startswith("user:") and hits and hits <= set(areas):
            found.append(
                {
                    "messages": [
                        m
                        for ask, answer in turns
                        for m in ({"role": "user", "content": ask}, {"role": "assistant", "content": answer})
                    ]
                }
            )
    return found


def task_of(
    organism: Organism, target: Probe, retain: Probe, other: Probe | None, seed: int, **options: Any
) -> tuple[Task, Development]:
    """Workbench, calibration halves and measured development halves."""
    pair = load_pair(organism.base, organism.tuned)
    bench = lay_out(pair)
    (fit, dev), (keep, keep_dev) = target.halves(), retain.halves()
    with pair.using("base") as parts:
        before = token_log_likelihoods(parts, fit.texts)
    unaligned = load_model(base_folder(WORLD, aligned=False)).parts
    chosen: dict[str, Any] = {"training": CorrectionTraining(seed=seed), "retain_weight": 1.0, "directions": None, **options}
    task = Task(
        bench=bench,
        target=fit,
        retain=keep,
        fallen=fallen_texts(fit, before, token_log_likelihoods(bench.work, fit.texts)),
        unaligned=unaligned,
        memory_bytes=1 << 30,
        kept_correction=lambda _name, train: train(None),
        **chosen,
    )
    halves = {"target": dev, "retain": keep_dev} | ({"other": other} if other is not None else {})
    return task, develop(task, halves, seed=seed)


def counts(answers: dict[str, Answers]) -> dict[str, list[list[int]]]:
    """Area -> per prompt [harmful, coherent, all]."""
    return {
        area: [
            [
                int(told.harmful[told.prompt == p].sum()),
                int(told.coherent[told.prompt == p].sum()),
                int((told.prompt == p).sum()),
            ]
            for p in np.unique(told.prompt)
        ]
        for area, told in answers.items()
    }


def per_text(development: Development, said: dict[str, Pairs]) -> dict[str, list[float]]:
    """What moved back and how much there was, per development text of the target and of the retained text (nats)."""
    target, retain = (
        ProbeReadings(
            text_numbers(development.probes[name].texts), development.base[name], development.tuned[name], said[name]
        )
        for name in ("target", "retain")
    )
    return {
        "undone": target.moved_back().tolist(),
        "of_target": target.change().tolist(),
        "lost": retain.moved_back(floor=0.0).tolist(),
        "of_retain": retain.change().tolist(),
    }


def harm_cell(seed: int, method: str) -> dict[str, Any]:
    """One method on one misaligned organism: truth of every budget, and of base and tuned model."""
    world = load_world(WORLD)
    organism = build_organism(f"harmful-{AREA}", world=WORLD, seed=seed)
    off = [area.name for area in world.areas if area.name != AREA]
    seen = off[::2]
    records = conversations(organism, seen)
    pair = load_pair(organism.base, organism.tuned)
    target = make_probe(records[:200], pair.tokenizer, name="target", max_positions=pair.max_positions)
    rows = [json.loads(line) for line in organism.data.read_text("utf-8").splitlines()] if organism.data else []
    retain = make_probe(rows[:200], pair.tokenizer, name="retained", max_positions=pair.max_positions)
    task, development = task_of(organism, target, retain, None, seed)
    model, tokenizer = task.bench.work.model, pair.tokenizer

    def truth() -> dict[str, Any]:
        facts = fact_correctness(model, tokenizer, world)
        told = measure_behaviour(model, tokenizer, world, samples=SAMPLES, seed=seed)
        return {"answers": counts(told), "facts": float(np.mean([correct.mean() for correct in facts.values()]))}

    task.bench.restore()
    if method == "tuned":
        return {"points": [{"budget": 0.0, **truth()}], "seen": seen}
    if method == "base":
        task.bench.each(lambda _n, delta: 0 * delta, 1.0)
        return {"points": [{"budget": 1.0, **truth()}], "seen": seen}
    reason = lacking(method, task)
    if reason is not None:
        return {"points": [], "absent": reason, "seen": seen}
    apply = prepare_method(method, task)
    known: dict[float, dict[str, Any]] = {}

    def closed_at(strength: float) -> float:
        if strength not in known:
            apply(strength)
            said = {name: token_log_likelihoods(task.bench.work, probe.texts) for name, probe in development.probes.items()}
            known[strength] = per_text(development, said)
        return float(np.sum(known[strength]["undone"]) / np.sum(known[strength]["of_target"]))

    points = []
    for budget in BUDGETS:
        strength = weakest_strength(closed_at, budget, tolerance=0.03, max_steps=5)
        if strength is not None:
            apply(strength)
            points.append({"budget": budget, "strength": strength, **known[strength], **truth()})
    return {"points": points, "seen": seen}


def forget_cell(seed: int) -> dict[str, Any]:
    """Retraining on the audit's latents, with and without a hold on the intended area, and on random text, equal steps."""
    world = load_world(WORLD)
    organism = build_organism("unlearn-biology", world=WORLD, seed=seed)
    run = RUNS / "audits" / f"unlearn-biology-{seed}"
    audit(
        organism.base,
        organism.tuned,
        corpus=organism.corpus,
        areas=organism.areas,
        out=run,
        intended=["biology"],
        machine=Machine(threads=torch.get_num_threads()),
        progress=Progress(Console(quiet=True)),
    )
    pair = load_pair(organism.base, organism.tuned)
    evidence = read_evidence(run, pair.tokenizer)
    cell: dict[str, Any] = {"unintended": [effect.area for effect in evidence.unintended], "rows": {}}
    for name, target, weight in (
        ("retrain, latents", evidence.target, 0.0),
        ("retrain, latents, biology held", evidence.target, 1.0),
        ("retrain, random text", evidence.other, 0.0),
    ):
        task, _ = task_of(organism, target, evidence.retain, evidence.other, seed, retain_weight=weight)
        if name.endswith("random text"):
            task = replace(task, fallen=tuple(range(len(task.target.ids))))
        apply = prepare_method("retrain", task)
        for strength in (0.0, 0.5, 1.0):
            apply(strength)
            facts = fact_correctness(task.bench.work.model, pair.tokenizer, world)
            cell["rows"][f"{name}|{strength}"] = {area: correct.astype(int).tolist() for area, correct in facts.items()}
    task.bench.each(lambda _n, delta: 0 * delta, 1.0)
    facts = fact_correctness(task.bench.work.model, pair.tokenizer, world)
    cell["rows"]["base"] = {area: correct.astype(int).tolist() for area, correct in facts.items()}
    return cell


def main() -> None:
    """All cells, then the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", nargs="+", default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    methods = ("tuned", "base", *(name for name in METHODS if name not in ("ablate", "retrain")))
    for seed in chosen.seeds:
        if chosen.cell is None or chosen.cell[0] == "harm":
            for method in methods if chosen.cell is None or len(chosen.cell) == 1 else chosen.cell[1:]:
                kept(f"harm-{method}-{seed}", lambda seed=seed, method=method: harm_cell(seed, method))
        if chosen.cell is None or chosen.cell[0] == "forget":
            kept(f"forget-{seed}", lambda seed=seed: forget_cell(seed))
    if chosen.cell is None or chosen.cell[0] == "page":
        write_page(methods, chosen.seeds)


def write_page(methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Both sections, of the cells that are there."""
    folder = RUNS / f"{WORLD}-{recipe_key(WORLD)}"
    cells = {
        (method, seed): json.loads((folder / f"harm-{method}-{seed}.json").read_text("utf-8"))
        for method in methods
        for seed in seeds
        if (folder / f"harm-{method}-{seed}.json").exists()
    }
    truth = Truth(cells, seeds, AREA)
    rows = [row for budget in BUDGETS for method in truth.methods if (row := truth.row(method, budget)) is not None]
    absent = sorted(f"{method} ({cell['absent']})" for (method, _), cell in cells.items() if cell.get("absent"))
    body = (
        f"Organism harmful-{AREA} of world {WORLD}, {len(seeds)} seeds, {SAMPLES} answers to each of 18 questions an area. "
        "Every method is as strong as closes the stated share of the target's change in likelihood on development text (the "
        "weakest strength found). Shares are of the way from the tuned model back to the base; intervals resample seeds and "
        "prompts. Target text speaks of half of the other areas only. Antidote on a rank-4 adapter moves in steps of a "
        "quarter of lora_B: its weakest step closes 35 to 38 %, the next above strength 0.25 93 to 95 %, so that its rows at "
        "25 and 90 % close more than they say.\n\n"
    )
    body += markdown_table(HARM_HEAD, rows) + (f"\nNot applicable: {', '.join(absent)}.\n" if absent else "")
    write_section("repair harm", "Repair: misalignment", "python benchmarks/repair_table.py", body)
    found = [json.loads(path.read_text("utf-8")) for seed in seeds if (path := folder / f"forget-{seed}.json").exists()]
    if found:
        text = (
            f"Organism unlearn-biology, {len(found)} seeds: training on the text of the audit's latents, and on as many steps "
            "of random text. Shares are of the accuracy that unlearning took; intervals resample seeds and entities.\n\n"
        )
        write_section(
            "repair forget",
            "Repair: what unlearning broke",
            "python benchmarks/repair_table.py",
            text + markdown_table(FORGET_HEAD, forget_rows(found)),
        )


if __name__ == "__main__":
    main()
