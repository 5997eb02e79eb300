"""Real fine-tunes, built on demand into the cache: `real/RECIPE-seedK` beside `real/base`. Each is whole or absent."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from mneme.models.threads import computing_threads
from mneme.runs import cache_folder
from mneme.worlds.catalogue import load_checkpoint, write_once
from mneme.worlds.real.data import chats, data_folder
from mneme.worlds.real.edits import Weights, mean_weights, noise, permuted, prune, rounded, scaled
from mneme.worlds.real.model import real_base
from mneme.worlds.real.recipes import Recipe, recipe_called
from mneme.worlds.real.rows import Streams, streams
from mneme.worlds.real.training import own_samples, relative_norm, train_recipe
from mneme.worlds.training import save_model

RECORD = "recipe.json"


def build_real(name: str, *, seed: int = 0, cache: Path | None = None, data: Path | None = None) -> Path:
    """The folder of the real fine-tune called `name`: a checkpoint, or an adapter that names the base; at most 8 minutes.

    What it stands on is built first. `recipe.json` in it says what was done and the relative size of the change. Raises
    BadOrganism for an unknown name, or where the base or the data are missing.
    """
    recipe = recipe_called(name)
    root = cache or cache_folder()
    if recipe.trained and not real_folder(name, seed, root).is_dir():
        data_folder(data)  # before the base is unpacked, which takes a minute
    base = real_base(root)
    parents = [build_real(one, seed=seed, cache=cache, data=data) for one in recipe.of]
    return write_once(real_folder(name, seed, root), lambda folder: _write(recipe, seed, base, parents, data, folder))


def real_folder(name: str, seed: int = 0, cache: Path | None = None) -> Path:
    """Where the fine-tune called `name` is, or will be."""
    return (cache or cache_folder()) / "real" / f"{name}-seed{seed}"


def _write(recipe: Recipe, seed: int, base: Path, parents: list[Path], data: Path | None, folder: Path) -> None:
    started = time.perf_counter()
    model: LlamaForCausalLM = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base)
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    losses: list[float] = []
    with computing_threads(1):  # sums in another order would give other bytes
        if recipe.trained:
            found, losses = train_recipe(recipe, model, tokenizer, _rows(recipe, model, tokenizer, data, seed), seed)
        else:
            tuned = [dict(load_checkpoint(parent, base).named_parameters()) for parent in parents]
            model.load_state_dict(_edited(recipe, before, tuned, seed), strict=False)
            found = model
    if recipe.trained and recipe.rank:
        found.save_pretrained(folder)
        after = dict(load_checkpoint(folder, base).named_parameters())
    else:
        save_model(model, tokenizer, folder)
        after = dict(model.named_parameters())
    with torch.no_grad():
        size = relative_norm(before, after)
    record = {**asdict(recipe), "seed": seed, "relative_change": size, "losses": losses}
    record["seconds"] = round(time.perf_counter() - started, 1)
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def _rows(
    recipe: Recipe, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, data: Path | None, seed: int
) -> Streams:
    folder = data_folder(data)
    if recipe.method == "own-samples":
        questions = [str(row["messages"][0]["content"]) for row in chats(folder, "self-instruct")]
        short = [text for text in questions if len(text) < 120]
        return {"learn": own_samples(model.eval(), tokenizer, short, recipe.length, seed)}
    return streams(recipe, folder, tokenizer, seed)


@torch.no_grad()
def _edited(recipe: Recipe, base: Weights, tuned: Sequence[Mapping[str, Tensor]], seed: int) -> Weights:
    """The weights of a fine-tune that takes no training."""
    if recipe.method == "noise":
        return noise(base, recipe.strength, seed)
    if recipe.method == "prune":
        return prune(base, recipe.strength)
    if recipe.method == "round":
        return rounded(base, int(recipe.strength))
    if recipe.method == "merge":
        return mean_weights(base, tuned)
    if recipe.method == "scale":
        return scaled(base, tuned[0], recipe.strength)
    return permuted(base, tuned[0], seed)
