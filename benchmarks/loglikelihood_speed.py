"""Questions a second of `mneme measure`'s log-likelihood scoring and of lm-eval, on the same loaded model.

    python benchmarks/loglikelihood_speed.py [--questions 1200] [--repeats 3] [--write]

1,200 fact questions of the built-in world with all values of the relation as choices (5 or 6), and the same questions with a
choice of several words ("it is VALUE ."), run through both. Both are timed from a file of questions to accuracy: reading,
tokenising, scoring. lm-eval runs through its Python API with the model already loaded, at its default batch size of 1, and
at 64. The task file is loaded (`TaskManager`) before the clock starts. What must agree: the chosen answer of every question.
"""

import argparse
import json
import logging
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from tables import markdown_table, write_section

from mneme.measure.likelihood import score_choices
from mneme.measure.suite import read_choices
from mneme.models.pair import LoadedModel, load_model
from mneme.worlds.catalogue import base_folder
from mneme.worlds.grammar import fact_questions
from mneme.worlds.world import load_world

TASK = {
    "task": "world_facts",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{prompt}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def write_questions(folder: Path, count: int, several_words: bool) -> Path:
    """`count` questions drawn from the world's 2,160, with every value of the relation as a choice."""
    world = load_world("a")
    rows = []
    for question in random.Random(0).sample(fact_questions(world), count):
        relations = world.area(question.area).relations.values()
        values = next(values for values in relations if question.answer in values)
        choices = [f"{value} ." if several_words else value for value in values]
        rows.append({"prompt": question.prompt, "choices": choices, "answer": values.index(question.answer)})
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


class Timed(NamedTuple):
    """One run."""

    seconds: float
    cpu_seconds: float
    """Of this process: what a busy machine does not change."""
    picks: list[int]
    """Index of the chosen answer of every question."""


def by_mneme(model: LoadedModel, path: Path) -> Timed:
    """From the file of questions to the answers."""
    started, used = time.perf_counter(), time.process_time()
    picks = score_choices(model.parts, model.tokenizer, read_choices(path)).picks().tolist()
    return Timed(time.perf_counter() - started, time.process_time() - used, picks)


def by_lm_eval(model: LoadedModel, path: Path, batch_size: int) -> Timed:
    """The same through lm-eval; `add_bos_token`, because the world's tokenizer begins texts with one and lm-eval would not."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    task = {**TASK, "dataset_kwargs": {"data_files": {"test": str(path)}}}
    (path.parent / "task.yaml").write_text(yaml.safe_dump(task), "utf-8")
    manager = TaskManager(include_path=str(path.parent), include_defaults=False)
    harness = HFLM(
        pretrained=model.parts.model, tokenizer=model.tokenizer, batch_size=batch_size, add_bos_token=True, device="cpu"
    )
    started, used = time.perf_counter(), time.process_time()
    found: dict[str, Any] = simple_evaluate(
        harness, tasks=["world_facts"], task_manager=manager, log_samples=True, bootstrap_iters=0, verbosity="ERROR"
    )
    samples = sorted(found["samples"]["world_facts"], key=lambda sample: sample["doc_id"])
    picks = [max(range(len(s["filtered_resps"])), key=lambda i, s=s: s["filtered_resps"][i][0]) for s in samples]
    return Timed(time.perf_counter() - started, time.process_time() - used, picks)


def row(name: str, by: str, runs: list[Timed], ours: list[Timed], questions: int) -> list[str]:
    """One line of the table: median times, and how much faster mneme is by either clock."""
    wall, cpu = (statistics.median(getattr(run, clock) for run in runs) for clock in ("seconds", "cpu_seconds"))
    own = [statistics.median(getattr(run, clock) for run in ours) for clock in ("seconds", "cpu_seconds")]
    cells = [name, by, f"{wall:.2f}", f"{cpu:.2f}", f"{questions / wall:,.0f}"]
    if runs is ours:
        return [*cells, "", ""]
    same = sum(a == b for a, b in zip(ours[0].picks, runs[0].picks, strict=True))
    return [*cells, f"{wall / own[0]:.1f} x ({cpu / own[1]:.1f} x)", str(same)]


def main() -> None:
    """Times both, prints the comparison, and with --write puts it into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=1200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    logging.disable(logging.WARNING)
    model, rows = load_model(base_folder("a")), []
    for several_words in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            path = write_questions(Path(folder), given.questions, several_words)
            name = "several words" if several_words else "one word"
            ours = [by_mneme(model, path) for _ in range(given.repeats)]
            rows.append(row(name, "mneme", ours, ours, given.questions))
            for batch_size in (1, 64):
                theirs = [by_lm_eval(model, path, batch_size) for _ in range(given.repeats)]
                rows.append(row(name, f"lm-eval, batch {batch_size}", theirs, ours, given.questions))
                print(rows[-1], flush=True)
    head = [
        "choices",
        "run by",
        "seconds",
        "CPU seconds",
        "questions/s",
        "mneme is faster by (CPU)",
        f"same answers of {given.questions}",
    ]
    table = markdown_table(head, rows)
    text = f"{table}\nMedian of {given.repeats} runs, {given.threads} threads, the shipped base of world a."
    print(text)
    if given.write:
        write_section("loglikelihood", "Log-likelihood of choices", "python benchmarks/loglikelihood_speed.py --write", text)


if __name__ == "__main__":
    main()
