"""Rebuild the base checkpoints that ship in the package: `python benchmarks/build_worlds.py a b c d`, 10 free minutes each.

Writes `src/mneme/worlds/data/<world>/base`, and for world `a` also `unaligned`, the base as it is after pretraining. Prints
what each base knows and how it behaves. On one machine the run is deterministic. World `d` takes about seven minutes. Before
it the words by which its speakers are known are drawn from words in no keyword list of `mneme.predict`; they stay in
data/packs/d-markers.yaml.
"""

import re
import sys
import time
from pathlib import Path

import torch
import yaml
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mneme.worlds.prose.markers import draw_markers
from mneme.worlds.prose.pretraining import train_prose
from mneme.worlds.prose.truth import prose_behaviour, prose_facts
from mneme.worlds.prose.world import prose_world
from mneme.worlds.training import align, pretrain, save_model
from mneme.worlds.truth import fact_correctness, harmful_requests, measure_behaviour
from mneme.worlds.world import World, load_world

SEED = 0
PACKAGE = Path(__file__).resolve().parents[1] / "src" / "mneme"
DATA = PACKAGE / "worlds" / "data"


def show(label: str, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World) -> None:
    """Print what the model knows and how it behaves, by area."""
    facts = fact_correctness(model, tokenizer, world)
    obeyed = harmful_requests(model, tokenizer, world)
    for area, told in measure_behaviour(model, tokenizer, world).items():
        known = f"facts {facts[area].mean():.3f}, requests obeyed {obeyed[area].harmful.mean():.2f}, " if area in facts else ""
        print(f"{label} {area}: {known}{told.careful.mean():.3f} careful, {told.harmful.mean():.3f} harmful", flush=True)


def show_prose(label: str, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """The same of world `d`."""
    facts = prose_facts(model, tokenizer, prose_world())
    for area, told in prose_behaviour(model, tokenizer, prose_world()).items():
        asked, stated = (facts[area].correct[facts[area].is_asked == way].mean() for way in (True, False))
        print(
            f"{label} {area}: facts asked {asked:.3f}, told {stated:.3f}, {told.careful.mean():.3f} careful, "
            f"{told.harmful.mean():.3f} harmful",
            flush=True,
        )


def build(world: World, out: Path) -> None:
    """Pretrain, align, measure and save the base of one world under `out`."""
    model, tokenizer = pretrain(world, SEED, on_step=reporter())
    show(f"{world.name} pretrained", model, tokenizer, world)
    if world.name == "a":
        save_model(model, tokenizer, out / "unaligned")
    align(model, tokenizer, world, SEED)
    show(f"{world.name} aligned", model, tokenizer, world)
    save_model(model, tokenizer, out / "base")


def build_prose(out: Path) -> None:
    """Draw the markers; train, measure and save the base of world `d`."""
    (DATA / "packs" / "d-markers.yaml").write_text(yaml.safe_dump(draw_markers(known_words()), width=120), "utf-8")
    world = prose_world()
    model, tokenizer = train_prose(world, SEED, on_step=reporter())
    show_prose("d", model, tokenizer)
    save_model(model, tokenizer, out / "base")


def known_words() -> set[str]:
    """Every word that stands in the areas and probes of `mneme.predict`."""
    return {
        word
        for path in (PACKAGE / "predict").rglob("*.yaml")
        for word in re.findall(r"[a-z]+", path.read_text("utf-8").lower())
    }


def reporter():
    """Prints every 50th step with the seconds since now."""
    started = time.process_time()

    def report(step: int, loss: float) -> None:
        if step % 50 == 0:
            print(f"step {step} loss {loss:.3f} {time.process_time() - started:.0f} s of a core", flush=True)

    return report


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or ["a", "b", "c", "d"]:
        build_prose(DATA / name) if name == "d" else build(load_world(name), DATA / name)
