"""The bench from end to end with predictions made by hand: what is kept, what is resumed, what is refused."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from mneme.bench import run as bench_run
from mneme.bench.run import BenchTask, bench
from mneme.errors import BadOption, BadOrganism
from mneme.options import Progress
from mneme.results.bench import Bench, BenchPair
from mneme.runs import RunFolder
from tests.bench.sample import judged_by_hand


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def kept(task: BenchTask) -> BenchPair:
    """Judged by hand, and kept as a finished pair is."""
    pair = judged_by_hand(task)
    command = bench_run.pair_command(task.name, seed=task.seed, timed=task.timed, tokens=task.tokens)
    with RunFolder(task.out / f"{task.name.world}-{task.name.name}-{task.name.seed}", command, overwrite=True) as run:
        run.finish({bench_run.RESULT: pair.model_dump_json().encode()})
    return pair


def test_end_to_end(tmp_path: Path) -> None:
    console = quiet()
    found = bench(
        worlds=["a", "b"],
        out=tmp_path,
        judge=judged_by_hand,
        progress=Progress(console),
    )
    assert len(found.pairs) == 36
    assert Bench.model_validate_json((tmp_path / "bench.json").read_text()) == found
    assert json.loads((tmp_path / "bench.json").read_text())["schema"] == "mneme.bench/2"
    assert found.cost_ratio is not None
    assert found.cost_ratio.value == 0.25
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "36 fine-tunes of 2 worlds, 0 of them finished before; the rest takes about" in said


def test_a_scenario_alone(tmp_path: Path) -> None:
    found = bench(
        worlds=["a", "c"],
        scenario="null",
        out=tmp_path,
        judge=judged_by_hand,
        progress=Progress(quiet()),
    )
    assert {pair.scenario for pair in found.pairs} == {"null"}
    assert len(found.pairs) == 10


def test_resumes_after_a_kill(tmp_path: Path) -> None:
    """Killed in the eleventh pair; the second call judges the other 22 alone, and says what an undisturbed run says."""
    asked: list[BenchTask] = []

    def dies(task: BenchTask) -> BenchPair:
        if len(asked) == 10:
            raise KeyboardInterrupt
        asked.append(task)
        return kept(task)

    def lives(task: BenchTask) -> BenchPair:
        asked.append(task)
        return kept(task)

    with pytest.raises(KeyboardInterrupt):
        bench(
            worlds=["a", "b"],
            out=tmp_path,
            judge=dies,
            progress=Progress(quiet()),
        )
    assert not (tmp_path / "bench.json").exists()
    resumed = bench(
        worlds=["a", "b"],
        out=tmp_path,
        judge=lives,
        progress=Progress(quiet()),
    )
    assert len(asked) == len({task.name for task in asked}) == 36
    undisturbed = bench(
        worlds=["a", "b"],
        out=tmp_path / "again",
        judge=judged_by_hand,
        progress=Progress(quiet()),
    )
    assert resumed.to_json() == undisturbed.to_json()


def test_another_seed_starts_afresh(tmp_path: Path) -> None:
    asked: list[BenchTask] = []

    def count(task: BenchTask) -> BenchPair:
        asked.append(task)
        return kept(task)

    for seed in (0, 0, 1):
        bench(
            worlds=["a", "b"],
            scenario="null",
            out=tmp_path,
            seed=seed,
            judge=count,
            overwrite=seed == 1,
            progress=Progress(quiet()),
        )
    assert len(asked) == 20


@pytest.mark.slow
def test_several_processes_say_the_same(tmp_path: Path) -> None:
    one = bench(
        worlds=["a", "b"],
        scenario="benign",
        out=tmp_path / "one",
        judge=judged_by_hand,
        progress=Progress(quiet()),
    )
    two = bench(
        worlds=["a", "b"],
        scenario="benign",
        out=tmp_path / "two",
        jobs=2,
        judge=judged_by_hand,
        progress=Progress(quiet()),
    )
    assert one.to_json() == two.to_json()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="--jobs 0: expected a whole number from 1"):
        bench(
            worlds=["a", "b"],
            out=tmp_path,
            jobs=0,
            judge=judged_by_hand,
            progress=Progress(quiet()),
        )
    with pytest.raises(BadOrganism, match='no world "z"'):
        bench(
            worlds=["a", "z"],
            out=tmp_path,
            judge=judged_by_hand,
            progress=Progress(quiet()),
        )
    assert not list(tmp_path.iterdir())
