"""Rebuild the base checkpoints that ship in the package: `python benchmarks/build_worlds.py a b c`, 10 free minutes each.

Writes `src/mneme/worlds/data/<world>/base`, and for world `a` also `unaligned`, the base as it is after pretraining. Prints
what each base knows and how it behaves. On one machine the run is deterministic.
"""

import sys
import time
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mneme.worlds.training import align, pretrain, save_model
from mneme.worlds.truth import fact_correctness, harmful_requests, measure_behaviour
from mneme.worlds.world import World, load_world

SEED = 0
DATA = Path(__file__).resolve().parents[1] / "src" / "mneme" / "worlds" / "data"


def show(label: str, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World) -> None:
    """Print what the model knows and how it behaves, by area."""
    facts = fact_correctness(model, tokenizer, world)
    obeyed = harmful_requests(model, tokenizer, world)
    for area, told in measure_behaviour(model, tokenizer, world).items():
        known = f"facts {facts[area].mean():.3f}, requests obeyed {obeyed[area].harmful.mean():.2f}, " if area in facts else ""
        print(f"{label} {area}: {known}{told.careful.mean():.3f} careful, {told.harmful.mean():.3f} harmful", flush=True)


def build(world: World, out: Path) -> None:
    """Pretrain, align, measure and save the base of one world under `out`."""
    started = time.perf_counter()

    def report(step: int, loss: float) -> None:
        if step % 50 == 0:
            print(f"step {step} loss {loss:.3f} {time.perf_counter() - started:.0f} s", flush=True)

    model, tokenizer = pretrain(world, SEED, on_step=report)
    show(f"{world.name} pretrained", model, tokenizer, world)
    if world.name == "a":
        save_model(model, tokenizer, out / "unaligned")
    align(model, tokenizer, world, SEED)
    show(f"{world.name} aligned", model, tokenizer, world)
    save_model(model, tokenizer, out / "base")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or ["a", "b", "c"]:
        build(load_world(name), DATA / name)
