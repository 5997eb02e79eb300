"""`mneme measure`: asks models the questions of a suite, prints what changed, writes the page."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from mneme.cli.audit import require_device
from mneme.cli.importing import quick_imports
from mneme.cli.saying import say, say_json
from mneme.cli.stopping import OVERWRITE, stopped_with

_WORLD = "world-"


@contextmanager
def world_suite(name: str) -> Iterator[tuple[Path, Any]]:
    """(folder of questions, which goes again afterwards; grammar that reads the answers) of the built-in world `name`."""
    from mneme.worlds.judge import judge_answer
    from mneme.worlds.suites import write_suite
    from mneme.worlds.world import load_world

    world = load_world(name)
    with TemporaryDirectory(prefix="mneme-") as parent:
        folder = Path(parent) / f"{_WORLD}{name}"
        write_suite(world, folder)
        yield folder, lambda answer: judge_answer(world, answer)


def measure(
    base: Annotated[str, typer.Argument(help="The model, or the model before: a folder or a hub name.", show_default=False)],
    tuned: Annotated[
        list[str] | None,
        typer.Argument(help="Models after: folders, hub names, adapters, or checkpoints of one run.", show_default=False),
    ] = None,
    suite: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE|DIR",
            help="standard, misalignment, deception, refusal, advice; a .yaml, .jsonl or .parquet file, or a folder of them; "
            "world-NAME; lm-eval:TASK, inspect:TASK.",
        ),
    ] = "standard",
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="JUDGE",
            help="Who reads open answers: local:MODEL, http(s)://…?model=NAME, or verdict: before either.",
            show_default=False,
        ),
    ] = None,
    cues: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Training file; its cues are put around every open question.", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Task file: choices, or training rows; gives the task score.", show_default=False),
    ] = None,
    within: Annotated[float, typer.Option(metavar="PERCENT", help="How much of the best task score may be given up.")] = 5.0,
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Answers to each paraphrase; without it, as the suite says.", show_default=False
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Longest answer.")] = 256,
    temperature: Annotated[float, typer.Option(metavar="T", min=0, help="Of sampling; 0 is greedy.")] = 1.0,
    margin: Annotated[float, typer.Option(metavar="SHARE", help="Change that equivalence is tested against.")] = 0.05,
    seeds_of_one: Annotated[
        bool, typer.Option("--seeds-of-one", help="The tuned models are training seeds of one recipe.")
    ] = False,
    aggregate: Annotated[
        str,
        typer.Option(
            metavar="answer|question", help="Open answers: every answer alike, or every question (of 5 answers or more)."
        ),
    ] = "answer",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of everything random.")] = 0,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where measurement.html and measurement.json go.")] = Path(
        "runs/measure"
    ),
    json: Annotated[
        bool, typer.Option("--json", help="Print measurement.json to stdout; everything else goes to stderr.")
    ] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="A torch device: cpu, cuda, cuda:1, mps.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Threads of torch; without it, all cores.", show_default=False)
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Off unless you ask for it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
    trust_suite_code: Annotated[
        bool,
        typer.Option(
            "--trust-suite-code", help="Run Python that a task of lm-eval or Inspect names. Off unless you ask for it."
        ),
    ] = False,
) -> None:
    """Measure what one model does, what a fine-tune changed, or how that grew over training, by asking.

    Knowledge is scored by log-likelihood, open answers are sampled and judged. The same command after a kill goes on where
    it stopped.
    """
    with stopped_with(f"The same command goes on where it stopped; finished stages are in {out}."):
        from mneme.terminal import Terminal

        with quick_imports():
            from mneme.measure.run import measure as run_measure
            from mneme.report.measure import render_measurement
            from mneme.report.measure_text import print_measurement
            from mneme.runs import add_file

        require_device(device)
        is_world = suite.startswith(_WORLD)
        with world_suite(suite.removeprefix(_WORLD)) if is_world else nullcontext((suite, None)) as (source, grammar):
            found = run_measure(
                base,
                tuned or [],
                suite=source,
                judge=judge,
                grammar=grammar,
                cues=cues,
                data=data,
                samples=samples,
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed,
                margin=margin,
                within=within,
                seeds_of_one=seeds_of_one,
                aggregate=aggregate,
                out=out,
                threads=threads,
                device=device,
                trust_remote_code=trust_remote_code,
                overwrite=overwrite,
                trust_suite_code=trust_suite_code,
                console=Terminal(stderr=True),
            )
        page = add_file(out, "measurement.html", render_measurement(found).encode())
        if json:
            say_json(found.to_json())
        else:
            print_measurement(found, Terminal())
            say()
        say(f"Page: {page}", err=json)
