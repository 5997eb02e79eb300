"""`mneme report`: makes the page of a finished run of any command again, without torch."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mneme.cli.audit import show_audit
from mneme.cli.bench import show_bench, show_real
from mneme.cli.compare import show_compare
from mneme.cli.compare_logs import show_logs
from mneme.cli.dpo import show_preferences
from mneme.cli.measure import show_measurement
from mneme.cli.repair import show_repair
from mneme.cli.saying import Json, say_json
from mneme.cli.screen import show_screening
from mneme.cli.train import show_training
from mneme.cli.unlearn import show_unlearning

if TYPE_CHECKING:
    from mneme.results import Record


def report(
    run: Annotated[Path, typer.Argument(help="A run folder, or the result file in it (report.json, …).", show_default=False)],
    json: Json = False,
) -> None:
    """Print what a finished run of any command found, and write its page again, from its result file alone.

    Runs of `train` and `bench` have no page; what they found is printed.
    """
    from mneme.options.fields import check_text
    from mneme.report.finished import read_run

    check_text("RUN", run, path=True)
    show_run(read_run(run), run if run.is_dir() else run.parent, json=json)


def show_run(found: "Record", out: Path, *, json: bool) -> None:
    """Shows a result as the command that made it does, and writes its page to `out`."""
    from mneme.results import Report
    from mneme.results.compare import Lineage
    from mneme.results.compare_logs import LogComparison
    from mneme.results.dpo import PreferenceRun
    from mneme.results.measure import Measurement
    from mneme.results.repair import RepairReport
    from mneme.results.screen import RowScreening
    from mneme.results.unlearn import Unlearning

    shown: dict[type, Callable[..., None]] = {
        Report: show_audit,
        Measurement: show_measurement,
        RepairReport: show_repair,
        RowScreening: show_screening,
        PreferenceRun: show_preferences,
        Unlearning: show_unlearning,
        LogComparison: show_logs,
        Lineage: show_compare,
    }
    if type(found) in shown:
        shown[type(found)](found, out, json=json)
    else:
        _print(found, json=json)


def _print(found: "Record", *, json: bool) -> None:
    """A result that has no page."""
    from mneme.results.bench import Bench, RealBench
    from mneme.results.train import TrainingRecord
    from mneme.terminal import Terminal

    match found:
        case TrainingRecord() | Bench() | RealBench() if json:
            say_json(found.to_json())
        case TrainingRecord():
            show_training(found)
        case Bench():
            show_bench(found, Terminal())
        case RealBench():
            show_real(found, Terminal())
