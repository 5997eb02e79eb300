"""`mneme bench`: how good the forecast is, beside every baseline, on fine-tunes whose side effects were measured."""

from pathlib import Path
from typing import TYPE_CHECKING

from mneme.bench.options import BenchOptions
from mneme.cli.commands import from_options
from mneme.cli.importing import quick_imports
from mneme.cli.saying import Json, say, say_json
from mneme.cli.stopping import stopped_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mneme.results.bench import Bench, RealBench, Score
    from mneme.terminal import Terminal

SHOWN = ("accuracy", "F1", "precision", "recall", "AUROC", "ECE", "false alarms", "direction")


@from_options(BenchOptions)
def bench(
    options: BenchOptions,
    json: Json = False,
) -> None:
    """Judge the audit and every baseline on fine-tunes whose side effects were measured.

    It says what it will cost before it starts. The same command after a kill goes on with the pairs that are left.
    """
    with stopped_with(f"The same command goes on with the pairs that are left; finished ones are in {options.out}."):
        with quick_imports():
            from mneme.bench.run import run_bench
            from mneme.terminal import Terminal

        if options.real is not None:
            _real(Path(options.real), Path(options.out), seed=options.seed, json=json)
            return
        found = run_bench(options)
        if json:
            say_json(found.to_json())
        else:
            show_bench(found, Terminal())
    say(f"Result: {Path(options.out) / 'bench.json'}", err=json)


def _real(data: Path, out: Path, *, seed: int, json: bool) -> None:
    """The bench on a real model."""
    from mneme.terminal import Terminal

    with quick_imports():
        from mneme.bench.real.run import bench_real

    found = bench_real(data, out, seed=seed, say=lambda line: say(line, err=True))
    if json:
        say_json(found.to_json())
    else:
        show_real(found, Terminal())
    say(f"Result: {out / 'real.json'}", err=json)


def show_real(found: "RealBench", console: "Terminal") -> None:
    """A table of the predictors for every part of the cells, and their false alarms."""
    from mneme.options import counted

    show_scores(found.scores, console)
    for name, (alarmed, nulls) in found.alarms.items():
        say(f"{name}: a false alarm in {alarmed} of {counted(nulls, 'fine-tune')} without a purpose.")


def show_bench(found: "Bench", console: "Terminal") -> None:
    """A table of the predictors for every scenario, and what an audit costs beside measuring everything."""
    from mneme.results import Estimate

    show_scores(found.scores, console)
    for what, ratio in (("An audit", found.cost_ratio), ("Without a dictionary it", found.quick_ratio)):
        if ratio is not None:
            bounds = f"[{ratio.low:.2f}, {ratio.high:.2f}]" if isinstance(ratio, Estimate) else f"[{ratio.told()}]"
            console.print(
                f"{what} takes {ratio.plain:.2f} {bounds} of the time of measuring everything ({ratio.n} fine-tunes timed).",
                markup=False,
            )


def show_scores(scores: "Sequence[Score]", console: "Terminal") -> None:
    """A table of the predictors for every scenario, each figure with its 95 % interval."""
    from mneme.terminal import Listing

    for scenario in dict.fromkeys(score.scenario for score in scores):
        own = [score for score in scores if score.scenario == scenario]
        console.print(f"{scenario}: {own[0].pairs} fine-tunes, {own[0].cells} cells, {own[0].material} of them material:")
        table = Listing(("predictor", *SHOWN))
        for score in own:
            table.add(score.predictor, *(figure(score, name) for name in SHOWN))
        console.print(table)


def figure(score: "Score", name: str) -> str:
    """`0.93 [0.91, 0.95]`, or a dash where the figure has no value."""
    found = score.figures.get(name)
    return "-" if found is None else f"{found.value:.3f} [{found.low:.2f}, {found.high:.2f}]"
