"""`mneme bench`: builds, measures and forecasts every pair once, and judges every predictor on worlds it has not seen."""

import multiprocessing
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mneme.bench.judging import score_all
from mneme.bench.one import RESULT, TOKENS, judge_pair, pair_command
from mneme.bench.pairs import PairName, chosen_pairs
from mneme.bench.truth import SAMPLES, measure_folder
from mneme.errors import BadOption
from mneme.results import Estimate, TooFew
from mneme.results.bench import Bench, BenchPair
from mneme.runs import RunFolder, key_of, read_finished, require_room
from mneme.stats import clustered_ratio
from mneme.terminal import Terminal
from mneme.version import __version__
from mneme.worlds.catalogue import base_folder, build_organism, recipe_key

SECONDS_A_PAIR, SECONDS_TIMED = 75, 200
_DISK_A_PAIR = 10_000_000
_PATIENCE = 3600.0
"""Seconds that a process waits for another which measures the base of the same world."""


class BenchTask(NamedTuple):
    """One pair to judge, with all that a worker process has to know."""

    name: PairName
    out: Path
    seed: int
    timed: bool
    tokens: int


def bench(
    worlds: Sequence[str] = ("a", "b", "c"),
    *,
    scenario: str = "all",
    out: str | Path = "runs/bench",
    jobs: int = 1,
    seed: int = 0,
    tokens: int = TOKENS,
    overwrite: bool = False,
    console: Console | None = None,
    judge: Callable[[BenchTask], BenchPair] | None = None,
) -> Bench:
    """Judge every predictor on the fine-tunes of `worlds` whose side effects are measured, and write `out`/bench.json.

    Each world is judged by calibrations fitted on the others, so at least two are needed. `scenario`: unlearning,
    misalignment, benign, null or all. `jobs`: processes, each on one thread. Every finished pair is kept in `out`; the same
    call after a kill goes on with the others. `judge` takes the place of measuring and forecasting (tests).

    Errors: BadOption for a scenario, a number of worlds or of jobs that makes no sense; BadOrganism for an unknown world.
    """
    console = console or Terminal(stderr=True)
    if jobs < 1:
        raise BadOption(f"--jobs {jobs}: expected at least 1 process.")
    names = chosen_pairs(list(worlds), scenario)
    command = {"command": "bench", "worlds": list(worlds), "scenario": scenario, "seed": seed, "tokens": tokens}
    with RunFolder(Path(out), command, outputs=("bench.json",), overwrite=overwrite) as run:
        pairs = _judged(names, Path(out), seed, tokens, jobs, judge or judge_task, console)
        found = compose_bench([pairs[name] for name in names], list(worlds), scenario, seed=seed)
        run.finish({"bench.json": found.to_json().encode()})
    return found


def _judged(
    names: Sequence[PairName],
    out: Path,
    seed: int,
    tokens: int,
    jobs: int,
    judge: Callable[[BenchTask], BenchPair],
    console: Console,
) -> dict[PairName, BenchPair]:
    """Every pair judged: those that were finished before are read, the rest is said and done."""
    timed = _timed(names)
    tasks = [BenchTask(name, out, seed, name in timed, tokens) for name in names]
    todo = [task for task in tasks if not _is_finished(task)]
    require_room(out, len(todo) * _DISK_A_PAIR)
    seconds = sum(SECONDS_TIMED if task.timed else SECONDS_A_PAIR for task in todo) / jobs
    console.print(
        f"{len(tasks)} fine-tunes of {len({name.world for name in names})} worlds, {len(tasks) - len(todo)} of them finished "
        f"before; the rest takes about {seconds / 60:.0f} minutes in {jobs} process{'es' if jobs > 1 else ''} of one thread."
    )
    pairs = {task.name: _read(task) for task in tasks if task not in todo}
    for task, judged in _run(todo, judge, jobs, console):
        pairs[task.name] = judged
    return pairs


def judge_task(task: BenchTask) -> BenchPair:
    """One pair, in this process."""
    torch.set_num_threads(1)
    base = base_stage(task)
    return judge_pair(task.name, _folder(task), base, seed=task.seed, timed=task.timed, tokens=task.tokens)


def base_stage(task: BenchTask) -> dict[str, np.ndarray]:
    """The base of the task's world, measured once for all its pairs."""
    world = task.name.world
    command = {"command": "bench base", "world": world, "recipe": recipe_key(world), "seed": task.seed, "samples": SAMPLES}
    folder = base_folder(world)
    with RunFolder(task.out / f"base-{world}", command, overwrite=True, patience=_PATIENCE) as run:
        return run.stage("measured", lambda: measure_folder(folder, folder, world, seed=task.seed, everything=True))


def compose_bench(pairs: list[BenchPair], worlds: list[str], scenario: str, *, seed: int) -> Bench:
    """All figures from finished pairs."""
    scores, curves = score_all(pairs, seed=seed)
    return Bench(
        worlds=worlds,
        scenario=scenario,
        pairs=pairs,
        scores=scores,
        curves=curves,
        cost_ratio=_ratio(pairs, "audit", "seconds", seed),
        quick_ratio=_ratio(pairs, "audit without dictionary", "seconds", seed),
        token_ratio=_ratio(pairs, "audit", "tokens", seed),
        environment={
            "mneme": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cores": str(len(os.sched_getaffinity(0))),
            "recipes": " ".join(f"{world}:{recipe_key(world)}" for world in worlds),
            "tokens": str(TOKENS),
            "seed": str(seed),
        },
    )


def _ratio(pairs: Sequence[BenchPair], what: str, field: str, seed: int) -> Estimate | TooFew | None:
    """What `what` costs over what measuring everything costs, on the pairs on which both were timed."""
    timed = [pair.costs for pair in pairs if what in pair.costs and "measuring everything" in pair.costs]
    if not timed:
        return None
    above = np.array([float(getattr(costs[what], field)) for costs in timed])
    below = np.array([float(getattr(costs["measuring everything"], field)) for costs in timed])
    return clustered_ratio(above, below, f"{field}, {what} / measuring everything", seed=seed, of="pairs timed")


def _timed(names: Sequence[PairName]) -> set[PairName]:
    """The first pair of unlearning and of misalignment in every world: there the costs are taken."""
    first: dict[tuple[str, str], PairName] = {}
    for name in names:
        if name.scenario in ("unlearning", "misalignment"):
            first.setdefault((name.world, name.scenario), name)
    return set(first.values())


def _folder(task: BenchTask) -> Path:
    return task.out / f"{task.name.world}-{task.name.name}-{task.name.seed}"


def _is_finished(task: BenchTask) -> bool:
    """Its result is there and was made by the same command."""
    found = read_finished(_folder(task), "bench", RESULT)
    command = pair_command(task.name, seed=task.seed, timed=task.timed, tokens=task.tokens)
    return found is not None and found.command["key"] == key_of(command)


def _read(task: BenchTask) -> BenchPair:
    return BenchPair.model_validate_json((_folder(task) / RESULT).read_text("utf-8"))


def _run(
    tasks: list[BenchTask], judge: Callable[[BenchTask], BenchPair], jobs: int, console: Console
) -> Iterator[tuple[BenchTask, BenchPair]]:
    """Judged pairs as they finish. The text and base of every world come first, so that no two processes make them at once."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("fine-tunes", total=len(tasks))

        def done(task: BenchTask, pair: BenchPair) -> tuple[BenchTask, BenchPair]:
            progress.advance(bar)
            material = sum(cell.material for cell in pair.cells)
            console.print(f"{task.name}: {material} of {len(pair.cells)} cells changed materially")
            return task, pair

        if jobs == 1 or len(tasks) < 2:
            for task in tasks:
                yield done(task, judge(task))
            return
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            if judge is judge_task:
                first = {task.name.world: task for task in reversed(tasks)}
                list(pool.map(_prepare, first.values()))
            waiting = {pool.submit(judge, task): task for task in tasks}
            try:
                for finished in as_completed(waiting):
                    yield done(waiting[finished], finished.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _prepare(task: BenchTask) -> None:
    torch.set_num_threads(1)
    build_organism("identical", world=task.name.world)
    base_stage(task)
