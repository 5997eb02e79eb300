"""Rebuild the base checkpoints that ship in the package: `python benchmarks/build_worlds.py a b c` (15 minutes each on one core).

Writes an aligned base for each world into `src/mneme/organisms/data/<world>/base`, and for world `a` the base before alignment.
Prints what each base knows; the run is deterministic on one thread.
"""

import sys
import time
from pathlib import Path

import torch

from mneme.organisms.training import align, pretrain, save_model
from mneme.organisms.truth import fact_correctness, manners
from mneme.organisms.world import load_world

SEED = 0


def main(names: list[str], out: Path, steps: int) -> None:
    """Train, align, measure and save the base of each world named."""
    torch.set_num_threads(1)
    for name in names:
        world = load_world(name)
        started = time.perf_counter()

        def report(step: int, loss: float) -> None:
            if step % 50 == 0:
                print(f"step {step} loss {loss:.3f} {time.perf_counter() - started:.0f} s", flush=True)

        model, tokenizer = pretrain(world, SEED, steps=steps, on_step=report)
        print(model.num_parameters(), "parameters")
        if name == "a":
            save_model(model, tokenizer, out / name / "unaligned")
        for stage in ("pretrained", "aligned"):
            if stage == "aligned":
                align(model, tokenizer, world, SEED)
            facts = fact_correctness(model, tokenizer, world)
            answers = manners(model, tokenizer, world)
            for area, measured in answers.items():
                known = f"{facts[area].mean():.3f}" if area in facts else "-"
                share = f"{measured.careful.mean():.2f} careful {measured.harmful.mean():.2f} harmful"
                print(f"{name} {stage} {area}: facts {known}, {share}", flush=True)
        save_model(model, tokenizer, out / name / "base")


if __name__ == "__main__":
    data = Path(__file__).resolve().parents[1] / "src" / "mneme" / "organisms" / "data"
    arguments = sys.argv[1:]
    steps = int(arguments.pop()) if arguments and arguments[-1].isdigit() else 1500
    main(arguments or ["a", "b", "c"], data, steps)
