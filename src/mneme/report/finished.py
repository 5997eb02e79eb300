"""Reads the result of any command back."""

import json
from pathlib import Path

from mneme.errors import BadRun
from mneme.report import wording
from mneme.report.reading import JOBS, read_record, result_text
from mneme.results import Record, Report
from mneme.results.bench import Bench, RealBench
from mneme.results.compare import Lineage
from mneme.results.compare_logs import LogComparison
from mneme.results.dpo import PreferenceRun
from mneme.results.measure import Measurement
from mneme.results.repair import RepairReport
from mneme.results.screen import RowScreening
from mneme.results.train import TrainingRecord
from mneme.results.unlearn import Unlearning

KINDS: dict[str, type[Record]] = {
    "report.json": Report,
    "measurement.json": Measurement,
    "repair.json": RepairReport,
    "screening.json": RowScreening,
    "preferences.json": PreferenceRun,
    "unlearn.json": Unlearning,
    "training.json": TrainingRecord,
    "compare.json": Lineage,
    "logs.json": LogComparison,
    "bench.json": Bench,
    "real.json": RealBench,
}
"""What a file in a run folder holds."""


def read_run(run: str | Path) -> Record:
    """The result in a run folder of any command, or in a result file that is named directly; its class says of which.

    Raises BadRun where there is none or more than one, where it is not JSON, or where it is of another schema.
    """
    path = Path(run)
    if path.is_dir():
        found = [name for name in KINDS if (path / name).is_file()]
        if len(found) > 1:
            raise BadRun(f"{path} holds {wording.listed(found, 9)}: the results of several commands. Name one of the files.")
        if not found:
            raise BadRun(
                f"No result of a run in {path}. Name the folder that a command of mneme wrote with --out; it holds one of "
                f"{', '.join(KINDS)}."
            )
        path = path / found[0]
    if path.name in KINDS:
        return read_record(path, JOBS[path.name], KINDS[path.name])
    kinds = {kind.model_fields["schema_"].default: name for name, kind in KINDS.items()}
    name = kinds.get(_schema_of(path))
    if name is None:
        raise BadRun(f"{path} is no result of mneme. Expected one of the schemas {', '.join(kinds)}.")
    return read_record(path, JOBS[name], KINDS[name])


def _schema_of(path: Path) -> str:
    """What a file of another name says that it is; empty where it says nothing."""
    try:
        found = json.loads(result_text(path, "audit"))
    except (ValueError, RecursionError):
        return ""
    return str(found.get("schema", "")) if isinstance(found, dict) else ""
