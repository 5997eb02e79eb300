"""`mneme bench`: builds, measures and forecasts every pair once, and judges every predictor on worlds it has not seen."""

import multiprocessing
import os
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mneme.bench.judging import score_all
from mneme.bench.one import RESULT, judge_pair, pair_command
from mneme.bench.options import TOKENS, BenchOptions
from mneme.bench.pairs import PairName, chosen_pairs
from mneme.bench.truth import SAMPLES, measure_folder
from mneme.errors import BadOption
from mneme.models.threads import computing_threads
from mneme.options import deciding, stored, taking
from mneme.results import Estimate, TooFew
from mneme.results.bench import Bench, BenchPair
from mneme.runs import RunFolder, key_of, read_finished, require_room
from mneme.stats import clustered_ratio
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


def run_bench(options: BenchOptions) -> Bench:
    """Judge every predictor on the fine-tunes of `worlds` whose side effects are measured, and write `out`/bench.json.

    Each world is judged by calibrations fitted on the others, so at least two are needed. `scenario`: unlearning,
    misalignment, benign, null or all. `jobs`: processes, each on one thread. Every finished pair is kept in `out`; the same
    call after a kill goes on with the others.

    Errors: BadOption for a number of worlds that makes no sense; BadOrganism for an unknown world.
    """
    if options.real is not None:
        raise BadOption("real is for the command line. In Python, call mneme.bench.real.run.bench_real with the folder.")
    worlds = list(options.worlds)
    names = chosen_pairs(worlds, options.scenario)
    command = {"command": "bench", **deciding(options)}
    folder, kept = Path(options.out), stored(options)
    with RunFolder(folder, command, options=kept, outputs=("bench.json",), overwrite=options.overwrite) as run:
        pairs = _judged(names, options)
        found = compose_bench([pairs[name] for name in names], worlds, options.scenario, seed=options.seed)
        run.finish({"bench.json": found.to_json().encode()})
    return found


bench = taking(BenchOptions, run_bench)


def _judged(names: Sequence[PairName], options: BenchOptions) -> dict[PairName, BenchPair]:
    """Every pair judged: those that were finished before are read, the rest is said and done."""
    timed, out, jobs = _timed(names), Path(options.out), options.jobs
    tasks = [BenchTask(name=name, out=out, seed=options.seed, timed=name in timed, tokens=options.tokens) for name in names]
    todo = [task for task in tasks if not _is_finished(task)]
    require_room(out, len(todo) * _DISK_A_PAIR)
    seconds = sum(SECONDS_TIMED if task.timed else SECONDS_A_PAIR for task in todo) / jobs
    options.progress.say(
        f"{len(tasks)} fine-tunes of {len({name.world for name in names})} worlds, {len(tasks) - len(todo)} of them finished "
        f"before; the rest takes about {seconds / 60:.0f} minutes in {jobs} process{'es' if jobs > 1 else ''} of one thread."
    )
    pairs = {task.name: _read(task) for task in tasks if task not in todo}
    for task, judged in _run(todo, options):
        pairs[task.name] = judged
    return pairs


def judge_task(task: BenchTask) -> BenchPair:
    """One pair, in this process."""
    with computing_threads(1):
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


def _run(tasks: list[BenchTask], options: BenchOptions) -> Iterator[tuple[BenchTask, BenchPair]]:
    """Judged pairs as they finish. The text and base of every world come first, so that no two processes make them at once."""
    judge, jobs = options.judge or judge_task, options.jobs
    with options.progress.bars() as track:
        advance = track("fine-tunes", len(tasks))

        def done(task: BenchTask, pair: BenchPair) -> tuple[BenchTask, BenchPair]:
            advance(1)
            material = sum(cell.material for cell in pair.cells)
            grey = sum(cell.grey for cell in pair.cells)
            options.progress.say(f"{task.name}: {material} of {len(pair.cells)} cells changed materially, {grey} are grey")
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
    with computing_threads(1):
        build_organism("identical", world=task.name.world)
        base_stage(task)
