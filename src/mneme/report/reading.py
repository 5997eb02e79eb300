"""Reads a finished audit back: its report, and its measured times beside it."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from mneme.errors import BadRun
from mneme.results import Record, Report

Found = TypeVar("Found", bound=Record)


JOBS = {
    "report.json": "audit",
    "measurement.json": "measure",
    "repair.json": "repair",
    "screening.json": "screen",
    "preferences.json": "dpo",
    "unlearn.json": "unlearn",
    "training.json": "train",
    "compare.json": "compare",
    "logs.json": "compare-logs",
    "bench.json": "bench",
    "real.json": "bench --real",
}
"""Whose a file in a run folder is."""


def read_report(run: str | Path) -> Report:
    """The report of a run folder of `audit`, or of a report.json named directly.

    Raises BadRun where there is none, where it is not JSON, or where it is of another schema.
    """
    path = Path(run)
    return read_record(path / "report.json" if path.is_dir() else path, "audit", Report)


def read_record(path: Path, job: str, record: type[Found]) -> Found:
    """The result of `mneme JOB` in this file. Raises BadRun as `read_report` does."""
    try:
        return record.model_validate_json(result_text(path, job))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        schema = record.model_fields["schema_"].default
        raise BadRun(
            f"{path} is not a {'report' if record is Report else 'result'} of schema {schema}: {place}: {first['msg']} "
            f"({error.error_count()} problem(s) in all). Run the {job} again, or read it with the version of mneme that wrote "
            "it."
        ) from error


def result_text(path: Path, job: str) -> str:
    """What a result file holds. Raises BadRun where it is no file, or cannot be read."""
    if path.exists() and not path.is_file():  # a device, a pipe: it may never end
        raise BadRun(f"{path} is no file. Expected the {path.name} that `mneme {job}` wrote.")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        holds = f"a run folder that holds {path.name}" if path.name in JOBS else "the folder of a run"
        raise BadRun(f"No report at {path}. Name {holds} (`mneme {job} --out DIR` makes one).") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadRun(f"Cannot read {path}: {error}. Expected the {path.name} that `mneme {job}` wrote.") from error


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
