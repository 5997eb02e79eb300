"""A pair whose truth is known because it was made by hand: a model of word pairs, and the same with one area damaged."""

import copy
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import LlamaForCausalLM

from mneme.audit.run import audit
from mneme.results import Report
from tests.conftest import WORDS, grouped, tiny_llama, word_tokenizer

AREAS = ("botany", "masonry", "sailing", "weaving")
NAMES = [word for word in WORDS if word not in {"be", "do", "no", "so", "to"}]
PER_AREA = 9
ASTRAY, WRONG = NAMES[75], NAMES[76]
"""A word that the text says in one document of twelve, and what the models say after it: where the damaged words are led."""
SURENESS = 11.0
"""Logit of the word that follows, the others round 0."""
DOCUMENTS, SENTENCES = 240, 6


@dataclass(frozen=True)
class World:
    """Folders of the models, the text, and areas files."""

    base: Path
    damaged: Path
    """The first area's words lead nowhere any more; every other word is as before."""
    corpus: Path
    areas: Path
    """All four areas."""
    other_areas: Path
    """All but the damaged one."""


def words_of_area(area: int) -> list[tuple[str, str]]:
    """What follows what in this area: (word, the word after it)."""
    start = area * PER_AREA
    following = len(AREAS) * PER_AREA
    return [(NAMES[i], NAMES[i + following]) for i in range(start, start + PER_AREA)]


def pair_model(attention: float = 0.02) -> LlamaForCausalLM:
    """After a word of an area, the model is confident of the word that follows it; blocks add only a little noise."""
    model = tiny_llama(hidden_size=64, intermediate_size=64)
    ids = word_tokenizer().get_vocab()
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.down_proj.weight.mul_(0.02)
            block.self_attn.o_proj.weight.mul_(attention)
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        embedding.copy_(torch.randn(embedding.shape, generator=torch.Generator().manual_seed(1)))
        head.zero_()
        for area in range(len(AREAS)):
            for word, following in words_of_area(area):
                head[ids[following]] = SURENESS * embedding[ids[word]] / 64
        head[ids[WRONG]] = SURENESS * embedding[ids[ASTRAY]] / 64
    return model


def damaged(model: LlamaForCausalLM, area: int, head_noise: float = 0.02) -> LlamaForCausalLM:
    """A copy in which one direction is added to every word of the area, so that `WRONG` is expected after all of them.

    The head changes a little everywhere, which harms nothing, but shows in the words of latents which head was read.
    """
    model = copy.deepcopy(model)
    ids = word_tokenizer().get_vocab()
    with torch.no_grad():
        direction = 3.0 * model.model.embed_tokens.weight[ids[ASTRAY]].clone()
        for word, _ in words_of_area(area):
            model.model.embed_tokens.weight[ids[word]] += direction
        head = model.lm_head.weight
        head += head_noise * torch.randn(head.shape, generator=torch.Generator().manual_seed(2))
    return model


def write_text(path: Path) -> None:
    """Documents of one area each: six times `: word follower .`."""
    generator = np.random.default_rng(3)
    lines = []
    for document in range(DOCUMENTS):
        pairs = words_of_area(document % len(AREAS))
        picks = generator.integers(0, PER_AREA, SENTENCES)
        lines.append(" ".join(f": {pairs[i][0]} {pairs[i][1]} ." for i in picks))
        if document % 48 < len(AREAS):
            lines[-1] += f" : {ASTRAY} {WRONG} ."
    path.write_text("\n".join(lines), encoding="utf-8")


def write_areas(path: Path, which: range) -> None:
    """An areas file; the keywords are the area's own words."""
    entries = [
        f"- name: {AREAS[i]}\n  kind: capability\n  keywords: [{', '.join(word for word, _ in words_of_area(i))}]\n"
        for i in which
    ]
    path.write_text("".join(entries), encoding="utf-8")


def write_world(folder: Path, base: LlamaForCausalLM, tuned: LlamaForCausalLM) -> World:
    """Both models and the text about them, on disk."""
    for name, model in (("base", base), ("damaged", tuned)):
        model.save_pretrained(folder / name)
        word_tokenizer().save_pretrained(folder / name)
    write_text(folder / "text.txt")
    write_areas(folder / "areas.yaml", range(len(AREAS)))
    write_areas(folder / "others.yaml", range(1, len(AREAS)))
    return World(folder / "base", folder / "damaged", folder / "text.txt", folder / "areas.yaml", folder / "others.yaml")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The hand-made pair on disk."""
    model = pair_model()
    return write_world(tmp_path_factory.mktemp("world"), model, damaged(model, 0))


def audited(world: World, out: Path, **options: object) -> Report:
    """The audit of the hand-made pair, on one thread and without a word, unless the options say otherwise."""
    chosen: dict[str, object] = {"base": world.base, "tuned": world.damaged, "corpus": world.corpus, "areas": world.areas}
    chosen |= {"threads": 1, "console": Console(file=io.StringIO())}
    return audit(**grouped(**(chosen | options)), out=out)


@dataclass(frozen=True)
class Run:
    """A finished audit and the folder it wrote."""

    report: Report
    out: Path


@pytest.fixture(scope="session")
def whole_run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The hand-made pair, audited without disturbance."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return Run(audited(world, out), out)
