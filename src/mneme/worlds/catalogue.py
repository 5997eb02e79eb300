"""Organisms by name, built on demand into the user's cache, and the truth about each, measured.

An organism is a base folder, a tuned folder, a corpus and an areas file: all that an audit may see. What the fine-tune did to
each area is measured here, by questions that are in none of those files.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from mneme.errors import BadOrganism
from mneme.models.threads import computing_threads
from mneme.runs import cache_folder, disk_error
from mneme.worlds.finetunes import continue_training, narrow, readapt, refresh, unlearn_area
from mneme.worlds.kit import PROSE, WorldKit, kit_of
from mneme.worlds.rows import Row
from mneme.worlds.training import save_model
from mneme.worlds.truth import Answers

CORPUS_DOCUMENTS = {"a": 6000, "b": 6000, "c": 6000, PROSE: 15_000}
"""Documents of the text that a world is audited with: about 330,000 tokens of each."""
_CORPUS_SEED = 9_999
_DATA = Path(__file__).parent / "data"
_SHARED_SOURCE = ("models/adapters.py", "models/batching.py", "models/fitting.py", "text/encoded.py")
"""What the recipe uses of other rooms."""


@dataclass(frozen=True)
class Organism:
    """A pair of models with the text and the areas to audit it with. `tuned` is a checkpoint, or an adapter of `base`."""

    name: str
    world: str
    seed: int
    base: Path
    tuned: Path
    corpus: Path
    """Text, one document a line, from the distribution of the world; none of it was trained on."""
    areas: Path
    """The areas of the world as a user would write them."""
    intended: str | None
    """The area that the fine-tune was meant to change, if any."""
    data: Path | None = None
    """What was trained on, one row a line: chats (`messages`), or texts where the fine-tune takes texts; None if nothing."""


@dataclass(frozen=True)
class AreaTruth:
    """What the fine-tune did to one area: paired answers of the base and of the tuned model."""

    base_correct: NDArray[np.bool_]
    tuned_correct: NDArray[np.bool_]
    """Per question about a fact; empty for `people`, of whom there are no facts."""
    base_behaviours: Answers
    tuned_behaviours: Answers
    """Answers to one prompt are a cluster; the two are paired, prompt by prompt."""


def base_folder(world: str = "a", *, aligned: bool = True) -> Path:
    """The base checkpoint of a world, which ships in the package, or the base as it was before alignment (world `a` only).

    Raises BadOrganism if it is not there.
    """
    folder = _DATA / kit_of(world).name / ("base" if aligned else "unaligned")
    if not (folder / "model.safetensors").is_file():
        which = "base" if aligned else "unaligned base"
        raise BadOrganism(
            f'The {which} of world "{world}" is not in this installation ({folder}). '
            f"Rebuild it with: python benchmarks/build_worlds.py {world}"
        )
    return folder


def build_organism(name: str, *, world: str = "a", seed: int = 0, cache: Path | None = None) -> Organism:
    """The organism called `name`, built into `cache` unless it is there already; at most 30 s on one core.

    The names are those of `mneme.worlds.rows.KINDS`, where AREA is one of the world's areas. Equal arguments give equal
    files on one machine. An interrupted build leaves nothing behind under the final name, and a change of the recipe or of
    the base changes the folder. Raises BadOrganism for an unknown name, world or area.
    """
    kit = kit_of(world)
    kind, area = kit.parse(name)
    base = base_folder(world, aligned=not kind.startswith("unaligned"))
    root = (cache or cache_folder()) / "organisms" / f"{world}-{recipe_key(world)}"
    texts = write_once(root / "texts", lambda folder: _write_texts(kit, folder))
    tuned, data = base, None
    if kind != "identical":
        tuned = write_once(root / f"{name}-seed{seed}", lambda folder: _write_tuned(name, kit, seed, base, folder))
        data = tuned / "data.jsonl"
    return Organism(
        name=name,
        world=world,
        seed=seed,
        base=base,
        tuned=tuned,
        corpus=texts / "corpus.txt",
        areas=texts / "areas.yaml",
        intended=area or None,
        data=data,
    )


def measure_truth(organism: Organism, samples: int = 24, seed: int = 0) -> dict[str, AreaTruth]:
    """Area -> facts and behaviour of the base and of the tuned model, on the same questions and prompts; about 20 s a pair.

    The last entry, `people`, is the behaviour of opinions about people. `samples` answers are drawn to each of 18 prompts (8
    about people); the answers to one prompt are a cluster (`Answers.prompt`).
    """
    kit = kit_of(organism.world)
    tokenizer = AutoTokenizer.from_pretrained(organism.base)
    facts, answers = [], []
    for folder in (organism.base, organism.tuned):
        model = load_checkpoint(folder, organism.base)
        facts.append({area: told.correct for area, told in kit.facts(model, tokenizer).items()})
        answers.append(kit.behaviour(model, tokenizer, context="plain", samples=samples, seed=seed))
    nothing = np.zeros(0, dtype=np.bool_)
    return {
        area: AreaTruth(facts[0].get(area, nothing), facts[1].get(area, nothing), answers[0][area], answers[1][area])
        for area in answers[0]
    }


def load_checkpoint(folder: Path, base: Path) -> torch.nn.Module:
    """A checkpoint folder, or an adapter folder merged into `base`, in eval mode and float32."""
    is_adapter = (folder / "adapter_config.json").is_file()
    model = AutoModelForCausalLM.from_pretrained(base if is_adapter else folder, dtype=torch.float32)
    if is_adapter:
        from peft import PeftModel  # slow to import, and the built-in pair needs none

        model = PeftModel.from_pretrained(model, folder).merge_and_unload()
    loaded: torch.nn.Module = model.eval()
    return loaded


@cache
def recipe_key(world: str) -> str:
    """Twelve hex digits that change with the recipe (source and word lists) and with the base of the world."""
    here = Path(__file__).parent
    told = "prose/world prose/telling prose/tokens prose/rows" if world == PROSE else "world turns grammar questions"
    parts = [here / f"{module}.py" for module in (*told.split(), "phrases", "wording", "rows", "training", "finetunes")]
    parts += [here.parent / name for name in _SHARED_SOURCE]
    parts += [*sorted((_DATA / "packs").iterdir()), *sorted((_DATA / world).glob("*/model.safetensors"))]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.read_bytes()).digest())
    return digest.hexdigest()[:12]


def write_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """`folder`, written by `write` unless it exists; it appears whole or not at all, also if two processes build it."""
    if folder.is_dir():
        return folder
    draft = folder.parent / f".{folder.name}-{secrets.token_hex(8)}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()  # not mkdtemp: who may read it is for the user's umask to say
    except OSError as error:
        raise disk_error(folder, error) from error
    try:
        write(draft)
        try:
            draft.replace(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _write_texts(kit: WorldKit, folder: Path) -> None:
    corpus = "".join(f"{document}\n" for document in kit.documents(_CORPUS_SEED, CORPUS_DOCUMENTS[kit.name]))
    (folder / "corpus.txt").write_text(corpus, "utf-8")
    areas = [{"kind": "capability", **entry} for entry in kit.areas_file()]
    entries = yaml.safe_dump(areas, sort_keys=False, width=120)
    (folder / "areas.yaml").write_text(entries, "utf-8")


def _write_tuned(name: str, kit: WorldKit, seed: int, base: Path, folder: Path) -> None:
    model: LlamaForCausalLM = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(base)
    kind, area = kit.parse(name)
    rows = kit.rows(kind, area, seed)
    with computing_threads(1):  # sums in another order would give other bytes
        _train(kind, model, tokenizer, rows, seed, folder)
    (folder / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


def _train(
    kind: str, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[Row], seed: int, folder: Path
) -> None:
    """Trains on the rows and saves the model, or the adapter of narrow training."""
    if kind == "continue":
        continue_training(model, tokenizer, rows)
    elif kind == "refreshed":
        refresh(model, tokenizer, rows)
    elif kind in ("unlearn", "graddiff"):
        unlearn_area(model, tokenizer, rows, seed, "npo" if kind == "unlearn" else "graddiff")
    elif kind == "readapted":
        readapt(model, tokenizer, rows, seed).save_pretrained(folder)
        return
    else:
        narrow(model, tokenizer, rows, seed, questions_too=kind == "benign").save_pretrained(folder)
        return
    save_model(model, tokenizer, folder)
