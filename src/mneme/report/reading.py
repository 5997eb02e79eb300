"""Reads a finished run back: the result of any command, and an audit's measured times beside it."""

import json
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from mneme.errors import BadRun
from mneme.report import wording
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

Found = TypeVar("Found", bound=Record)


class _Kind(NamedTuple):
    """A result file: whose it is, and what it holds."""

    job: str
    record: type[Record]


KINDS: dict[str, _Kind] = {
    "report.json": _Kind("audit", Report),
    "measurement.json": _Kind("measure", Measurement),
    "repair.json": _Kind("repair", RepairReport),
    "screening.json": _Kind("screen", RowScreening),
    "preferences.json": _Kind("dpo", PreferenceRun),
    "unlearn.json": _Kind("unlearn", Unlearning),
    "training.json": _Kind("train", TrainingRecord),
    "compare.json": _Kind("compare", Lineage),
    "logs.json": _Kind("compare-logs", LogComparison),
    "bench.json": _Kind("bench", Bench),
    "real.json": _Kind("bench --real", RealBench),
}
"""By the name of the file in a run folder."""


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
        return _read(path, *KINDS[path.name])
    kinds = {kind.record.model_fields["schema_"].default: kind for kind in KINDS.values()}
    kind = kinds.get(_schema_of(path))
    if kind is None:
        raise BadRun(f"{path} is no result of mneme. Expected one of the schemas {', '.join(kinds)}.")
    return _read(path, *kind)


def read_report(run: str | Path) -> Report:
    """The report of a run folder of `audit`, or of a report.json named directly.

    Raises BadRun where there is none, where it is not JSON, or where it is of another schema.
    """
    path = Path(run)
    return _read(path / "report.json" if path.is_dir() else path, "audit", Report)


def _read(path: Path, job: str, record: type[Found]) -> Found:
    try:
        return record.model_validate_json(_text(path, job))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        schema = record.model_fields["schema_"].default
        raise BadRun(
            f"{path} is not a {'report' if record is Report else 'result'} of schema {schema}: {place}: {first['msg']} "
            f"({error.error_count()} problem(s) in all). Run the {job} again, or read it with the version of mneme that wrote "
            "it."
        ) from error


def _text(path: Path, job: str) -> str:
    if path.exists() and not path.is_file():  # a device, a pipe: it may never end
        raise BadRun(f"{path} is no file. Expected the {path.name} that `mneme {job}` wrote.")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        holds = f"a run folder that holds {path.name}" if path.name in KINDS else "the folder of a run"
        raise BadRun(f"No report at {path}. Name {holds} (`mneme {job} --out DIR` makes one).") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadRun(f"Cannot read {path}: {error}. Expected the {path.name} that `mneme {job}` wrote.") from error


def _schema_of(path: Path) -> str:
    """What a file of another name says that it is; empty where it says nothing."""
    try:
        found = json.loads(_text(path, "audit"))
    except (ValueError, RecursionError):
        return ""
    return str(found.get("schema", "")) if isinstance(found, dict) else ""


def read_timings(run: str | Path) -> dict[str, float] | None:
    """What a run took, from the files beside its report; None where they are missing or unreadable.

    Seconds by stage (timings.json), and from plan.json `total` and `planned` seconds, `peak_bytes` and `planned_peak_bytes`.
    They decorate the page and are not part of a result, so a broken file is treated as a missing one.
    """
    folder = Path(run)
    folder = folder if folder.is_dir() else folder.parent
    numbers = TypeAdapter(dict[str, float])
    try:
        timings = numbers.validate_python(json.loads((folder / "timings.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    try:
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        measured, planned = numbers.validate_python(plan["measured"]), plan["planned"]
        extra = {"total": measured["seconds"], "peak_bytes": measured["peak_bytes"]}
        extra |= numbers.validate_python({"planned": planned["seconds"], "planned_peak_bytes": planned["peak_bytes"]})
    except (OSError, ValueError, KeyError, TypeError):
        return timings
    return timings | extra
