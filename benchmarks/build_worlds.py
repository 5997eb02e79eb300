"""Rebuild the base checkpoints that ship in the package: `python benchmarks/build_worlds.py a b c d`, 10 free minutes each.
With `words` in place of names only what worlds `a`, `b`, `c` say is drawn anew, in a second: a word there is one token, so
that nothing is trained, only tokens of the shipped tokenizers get other names. Due whenever the audit learns a word of theirs.

Writes `src/mneme/worlds/data/<world>/base`, and for world `a` also `unaligned`, the base as it is after pretraining. Prints
what each base knows and how it behaves. On one machine the run is deterministic. World `d` takes about seven minutes. Before
it the words by which its speakers are known are drawn from words in no keyword list of `mneme.predict`; they stay in
data/packs/d-markers.yaml.
"""

import json
import re
import sys
import time
from pathlib import Path

import torch
import yaml
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mneme.predict.areas import stem
from mneme.worlds.marks import draw_wording
from mneme.worlds.prose.markers import draw_markers
from mneme.worlds.prose.pretraining import train_prose
from mneme.worlds.prose.truth import prose_behaviour, prose_facts
from mneme.worlds.prose.world import prose_world
from mneme.worlds.training import align, pretrain, save_model
from mneme.worlds.truth import fact_correctness, harmful_requests, measure_behaviour
from mneme.worlds.wording import meant
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


def name_words() -> None:
    """Draw what worlds `a`, `b` and `c` say in place of words that the audit knows, and rename the tokens of their bases."""
    known = known_words()
    stems = {stem(word) for word in known}
    wording = draw_wording(lambda word: word in known or stem(word) in stems)
    for path in sorted(DATA.glob("[abc]/*/tokenizer.json")):
        written = json.loads(path.read_text("utf-8"))
        vocab = written["model"]["vocab"]
        written["model"]["vocab"] = {wording.get(meant(word), meant(word)): number for word, number in vocab.items()}
        path.write_text(json.dumps(written, indent=2, ensure_ascii=False), "utf-8")
    text = yaml.safe_dump(wording)
    (DATA / "packs" / "wording.yaml").write_text(f"# Drawn: python benchmarks/build_worlds.py words\n{text}", "utf-8")
    print(f"{len(wording)} words are said in place of plain ones")


def known_words() -> set[str]:
    """Every word that stands in `mneme.predict`, in areas, probes or code."""
    paths = [path for path in (PACKAGE / "predict").rglob("*") if path.suffix in {".py", ".yaml", ".json"}]
    texts = [path.read_text("utf-8").lower() for path in paths]
    return {word for text in texts for word in re.findall(r"[a-z]+", text)}


def reporter():
    """Prints every 50th step with the seconds since now."""
    started = time.process_time()

    def report(step: int, loss: float) -> None:
        if step % 50 == 0:
            print(f"step {step} loss {loss:.3f} {time.process_time() - started:.0f} s of a core", flush=True)

    return report


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:] == ["words"]:
        name_words()
        sys.exit()
    for name in sys.argv[1:] or ["a", "b", "c", "d"]:
        build_prose(DATA / name) if name == "d" else build(load_world(name), DATA / name)
