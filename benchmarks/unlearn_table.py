"""What does every unlearning method remove, what goes with it, and does it come back? Methods x areas of one world, measured.

An area is unlearned from the base of a world by `mneme unlearn` with its defaults. The forget text is 240 documents of
knowledge of the area. The retain text is 1,500 documents of ordinary text of the world in which neither the area nor one
other area occurs: what a user gathers who does not think of it. For the tied area that other one is its neighbour (its
entities are in the forget text); for the unlinked area it is an area with no tie, so that the two tell a side effect of the
tie from one of being left out.

Knowledge is read off by questions (180 an area) that are in no text: the likeliest next word has to be the answer; chance is
1 over the number of values a relation has. Intervals are clustered by entity. Relearning fine-tunes the unlearned model (50
steps) on 10 or 50 documents about one half of the area's entities, or on 50 documents of other areas, and asks about the other
half of the entities. The audit reads the pair with the corpus and areas of the world, and is not told what was left out.

    python benchmarks/unlearn_table.py            every cell that is not there yet, then docs/benchmarks.md
    python benchmarks/unlearn_table.py --cell biology npo
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from tables import markdown_table, write_section
from transformers import PreTrainedTokenizerBase

from mneme.errors import UnlearningFailed
from mneme.models.architecture import Parts
from mneme.models.checkpoints import model_fingerprint
from mneme.models.pair import load_model
from mneme.options import Machine, Progress
from mneme.results import Estimate
from mneme.runs import key_of, write_atomic
from mneme.stats import clustered_rate
from mneme.text.documents import Documents
from mneme.text.pieces import cut_pieces
from mneme.unlearn.relearning import relearn
from mneme.unlearn.run import unlearn
from mneme.unlearn.settings import DEFAULT_WIDTH, DEFAULTS, METHODS, Method
from mneme.worlds.catalogue import base_folder, build_organism
from mneme.worlds.grammar import Question, area_documents, documents, fact_questions
from mneme.worlds.world import WORD, World, load_world

WORLD = "a"
AREAS = {"biology": "chemistry", "law": "religion"}
"""Area that is unlearned -> the other area that the retain text leaves out."""
FORGET, RETAIN = 240, 1500
ATTACKS = {"related 10": 10, "related 50": 50, "unrelated 50": 50}
MATERIAL = 0.05
"""Loss of accuracy from which a side effect counts as one."""
RUNS = Path("runs/unlearn")


def accuracy(parts: Parts, tokenizer: PreTrainedTokenizerBase, questions: list[Question], world: World) -> Estimate:
    """Share of the questions whose answer is the likeliest next token, clustered by entity."""
    entity = [next(word for word in WORD.findall(q.prompt) if word in entities_of(world, q.area)) for q in questions]
    prompts = [tokenizer(q.prompt)["input_ids"] for q in questions]
    answers = tokenizer.convert_tokens_to_ids([q.answer for q in questions])
    right = np.zeros(len(questions))
    with torch.no_grad():
        for length in sorted({len(ids) for ids in prompts}):
            index = [i for i, ids in enumerate(prompts) if len(ids) == length]
            logits = parts.model(input_ids=torch.tensor([prompts[i] for i in index]), use_cache=False).logits[:, -1]
            right[index] = (logits.argmax(-1) == torch.tensor([answers[i] for i in index])).numpy()
    names, cluster = np.unique(entity, return_inverse=True)
    asked = np.bincount(cluster, minlength=len(names)).astype(float)
    return clustered_rate(np.bincount(cluster, weights=right, minlength=len(names)), asked, "accuracy").estimate


def asked_of(world: World, area: str) -> dict[str, list[Question]]:
    """Questions about the area, about the one that is left out of the retain text, and about all others."""
    questions = fact_questions(world)
    return {
        "forget": [q for q in questions if q.area == area],
        "neighbour": [q for q in questions if q.area == AREAS[area]],
        "retain": [q for q in questions if q.area not in (area, AREAS[area])],
    }


def entities_of(world: World, area: str) -> set[str]:
    """The entities of an area."""
    return set(world.area(area).entities)


def about(world: World, area: str, told: set[str], count: int) -> tuple[str, ...]:
    """Documents of an area that name, of its entities, only those in `told`."""
    others = entities_of(world, area) - told
    drawn = dict.fromkeys(area_documents(world, area, 5_000, 4_000))
    return tuple(text for text in drawn if not others & set(WORD.findall(text)))[:count]


def write_texts(world: World, area: str, folder: Path) -> tuple[Path, Path]:
    """(forget, retain) as files, one document a line."""
    forget, retain = folder / "forget.txt", folder / "retain.txt"
    left_out = {area, AREAS[area]}
    write_atomic(forget, "\n".join(dict.fromkeys(area_documents(world, area, 1, FORGET))).encode())
    write_atomic(retain, "\n".join(dict.fromkeys(documents(world, 77, RETAIN, left_out, is_aligned=True))).encode())
    return forget, retain


def measure_cell(area: str, method: str, folder: Path) -> dict[str, object]:
    """Unlearns, asks, attacks, asks again."""
    world, base = load_world(WORLD), base_folder(WORLD)
    forget, retain = write_texts(world, area, folder)
    started = time.perf_counter()
    options = {"forget": forget, "retain": retain, "method": method, "out": folder, "threads": 1}
    try:
        result = unlearn(
            base,
            **options,
            progress=Progress(Console(stderr=True, quiet=True)),
        )  # type: ignore[arg-type]
    except UnlearningFailed as error:
        return {"area": area, "method": method, "failed": str(error)}
    seconds = time.perf_counter() - started
    loaded = load_model(folder / "model")
    parts, tokenizer = loaded.parts, loaded.tokenizer
    groups = asked_of(world, area)
    cell: dict[str, object] = {"area": area, "method": method, "seconds": seconds, "failed": None}
    cell["kept"] = result.forget.kept.model_dump() if result.forget.kept else None
    for name, asked in groups.items():
        cell[name] = accuracy(parts, tokenizer, asked, world).model_dump()
    told = set(sorted(entities_of(world, area))[::2])
    untold = [q for q in groups["forget"] if not told & set(WORD.findall(q.prompt))]
    cell["untold"] = accuracy(parts, tokenizer, untold, world).model_dump()
    for name, count in ATTACKS.items():
        texts = about(world, area, told, count)
        if name.startswith("unrelated"):
            texts = tuple(documents(world, 6_000, count, {area, AREAS[area]}, is_aligned=True))
        pieces = cut_pieces(Documents(texts, name, name), tokenizer, 512)
        rate = DEFAULTS["npo"].learning_rate * DEFAULT_WIDTH / parts.width
        cell[name] = accuracy(relearn(parts, pieces, learning_rate=rate, seed=0), tokenizer, untold, world).model_dump()
        cell[f"{name} texts"] = len(texts)
    return cell


def audit_cell(area: str, folder: Path) -> dict[str, object]:
    """What the audit of the pair says: P and direction of the left-out area, and how many others reach P 0.5."""
    from mneme.audit.run import audit

    organism = build_organism("identical", world=WORLD)
    report = audit(
        organism.base,
        folder / "model",
        corpus=organism.corpus,
        areas=organism.areas,
        out=folder / "audit",
        dictionary="none",
        intended=[area],
        machine=Machine(threads=1),
        progress=Progress(Console(stderr=True, quiet=True)),
    )
    found = {effect.area: effect for effect in report.effects if effect.kind == "capability"}
    other = found[AREAS[area]]
    return {
        "probability": other.probability,
        "direction": other.direction,
        "magnitude": other.magnitude.model_dump(),
        "target": found[area].probability,
        "others": sorted(e.area for e in report.effects if e.probability >= 0.5 and e.area not in (area, AREAS[area])),
    }


def cell_of(area: str, method: Method) -> dict[str, object]:
    """One cell, read where it was measured before with the same base, texts and defaults. A change of the code of a method is
    not seen: remove its folder."""
    folder = RUNS / f"{area}-{method}"
    texts = write_texts(load_world(WORLD), area, folder)
    key = key_of(
        {
            "base": model_fingerprint(base_folder(WORLD)),
            "defaults": str(DEFAULTS[method]),
            "texts": [path.read_text("utf-8") for path in texts],
        }
    )
    path = folder / "cell.json"
    stored = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if stored.get("key") != key:
        shutil.rmtree(folder / "audit", ignore_errors=True)
        stored = {"key": key, **measure_cell(area, method, folder)}
        write_atomic(path, json.dumps(stored, indent=2).encode())
    if "audit" not in stored and not stored["failed"]:
        stored["audit"] = audit_cell(area, folder)
        write_atomic(path, json.dumps(stored, indent=2).encode())
    return stored


def percent(value: object) -> str:
    """Accuracy with its interval, in per cent."""
    estimate = Estimate.model_validate(value)
    return f"{100 * estimate.value:.1f} [{100 * max(0.0, estimate.low):.1f}, {100 * min(1.0, estimate.high):.1f}]"


def audited(cell: dict[str, object]) -> str:
    """What the audit said of the left-out area, and what else it found."""
    said = cell["audit"]
    assert isinstance(said, dict)
    also = f"; also {', '.join(said['others'])}" if said["others"] else ""
    return f"P {said['probability']:.2f} {said['direction']}{also}"


def chance(area: str) -> float:
    """Accuracy of guessing among the values of each relation."""
    values = load_world(WORLD).area(area).relations.values()
    return float(np.mean([1 / len(names) for names in values]))


def body(cells: list[dict[str, object]]) -> str:
    """Both tables and what they show."""
    world, text = load_world(WORLD), ""
    base = load_model(base_folder(WORLD))
    before = {}
    for area, other in AREAS.items():
        before[area] = {
            name: accuracy(base.parts, base.tokenizer, asked, world).model_dump()
            for name, asked in asked_of(world, area).items()
        }
        mine = [cell for cell in cells if cell["area"] == area]
        tie = "tied to it" if area == world.linked[0] else "not tied to it"
        text += f"**{area}**, chance {100 * chance(area):.1f} %; left out of the retain text: {other}, {tie}.\n\n"
        rows = [["before", *(percent(before[area][name]) for name in ("forget", "retain", "neighbour")), ""]]
        rows += [
            [str(c["method"]), *(percent(c[name]) for name in ("forget", "retain", "neighbour")), audited(c)]
            for c in mine
            if not c["failed"]
        ]
        rows += [[str(c["method"]), str(c["failed"]), "", "", ""] for c in mine if c["failed"]]
        text += markdown_table(["method", "forget %", "retain %", f"{other} %", f"audit of {other}"], rows) + "\n"
        text += "Relearning: accuracy on the entities of the area that the attack was not told about.\n\n"
        rows = [
            [str(c["method"]), percent(c["untold"]), *(percent(c[name]) for name in ATTACKS)] for c in mine if not c["failed"]
        ]
        text += markdown_table(["method", "unlearned %", *(f"{name} %" for name in ATTACKS)], rows) + "\n"
    said = [(lost(cell, before), found(cell)) for cell in cells if not cell["failed"]]
    hurt, unhurt = ([claim for loss, claim in said if (loss >= MATERIAL) is material] for material in (True, False))
    text += (
        f"The audit said P >= 0.5 and worse of the area that was left out in {sum(hurt)} of the {len(hurt)} pairs in which it "
        f"lost {100 * MATERIAL:.0f} points or more, and in {sum(unhurt)} of the {len(unhurt)} in which it lost less.\n\n"
    )
    good = [cell for cell in cells if not cell["failed"] and reaches(cell)]
    names = ", ".join(f"{cell['method']} on {cell['area']}" for cell in good) or "none"
    return text + (
        f"Forget at most chance + 5 points and retain at least 98 %: {names}. World {WORLD}, base "
        f"{model_fingerprint(base_folder(WORLD))[:12]}; 100 steps of 8 + 8 documents, seed 0, defaults of `mneme unlearn`, "
        f"which were chosen on world b. {FORGET} and {RETAIN} documents (less repeated ones), 30 entities an area, 15 of them "
        "untold; the retain column is ten areas, 300 entities.\n"
    )


def lost(cell: dict[str, object], before: dict[str, dict[str, object]]) -> float:
    """Accuracy that the left-out area lost."""
    first, now = Estimate.model_validate(before[str(cell["area"])]["neighbour"]), Estimate.model_validate(cell["neighbour"])
    return first.value - now.value


def found(cell: dict[str, object]) -> bool:
    """Whether the audit says that the left-out area became worse."""
    said = cell["audit"]
    assert isinstance(said, dict)
    return bool(said["probability"] >= 0.5 and said["direction"] == "worse")


def reaches(cell: dict[str, object]) -> bool:
    """Forgotten to chance + 5 points with 98 % of the rest kept."""
    forget, retain = (Estimate.model_validate(cell[name]) for name in ("forget", "retain"))
    return forget.value <= chance(str(cell["area"])) + 0.05 and retain.value >= 0.98


def main() -> None:
    """Measures what is missing; without --cell writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", nargs=2, metavar=("AREA", "METHOD"))
    chosen = parser.parse_args().cell
    torch.set_num_threads(1)
    if chosen:
        print(json.dumps(cell_of(*chosen), indent=2))
        return
    cells = []
    for area in AREAS:
        for method in METHODS:
            cells.append(cell_of(area, method))
            said = {name: percent(cells[-1][name]) for name in ("forget", "retain", "neighbour") if name in cells[-1]}
            print(area, method, said, file=sys.stderr)
    write_section(
        "unlearn", "Unlearning: what goes, what stays, what comes back", "python benchmarks/unlearn_table.py", body(cells)
    )


if __name__ == "__main__":
    main()
