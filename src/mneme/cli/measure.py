"""`mneme measure`: asks models the questions of a suite, prints what changed, writes the page."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mneme.cli.again import asked_again
from mneme.cli.commands import from_options
from mneme.cli.importing import quick_imports
from mneme.cli.saying import Json, say, say_json
from mneme.cli.stopping import working
from mneme.measure.options import MeasureOptions

if TYPE_CHECKING:
    from mneme.results.measure import Measurement

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


@from_options(MeasureOptions)
def measure(
    options: MeasureOptions,
    json: Json = False,
) -> None:
    """Measure what one model does, what a fine-tune changed, or how that grew over training, by asking.

    Knowledge is scored by log-likelihood, open answers are sampled and judged. The same command after a kill goes on where
    it stopped.
    """
    out, suite = Path(options.out), str(options.suite)
    with working(options.machine, f"The same command goes on where it stopped; finished stages are in {out}."):
        with quick_imports():
            from mneme.measure.run import run_measure

        is_world = suite.startswith(_WORLD)
        with world_suite(suite.removeprefix(_WORLD)) if is_world else nullcontext((suite, None)) as (source, grammar):
            found = run_measure(replace(options, suite=source, grammar=grammar))
        show_measurement(found, out, json=json)


def show_measurement(found: "Measurement", out: Path, *, json: bool) -> None:
    """Writes the page of a finished measurement in `out`; prints it, as JSON or as a table, and where the page is."""
    from mneme.report.measure import render_measurement
    from mneme.report.measure_text import print_measurement
    from mneme.runs import add_file
    from mneme.terminal import Terminal

    page = add_file(out, "measurement.html", render_measurement(found, asked_again(out, "measure", MeasureOptions)).encode())
    if json:
        say_json(found.to_json())
    else:
        print_measurement(found, Terminal())
        say()
    say(f"Page: {page}", err=json)
