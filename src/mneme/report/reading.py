"""Reads a finished run back: report.json and the measured times beside it."""

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mneme.errors import BadRun
from mneme.results import Report

SCHEMA = "mneme.report/1"


def read_report(run: str | Path) -> Report:
    """The report of a run folder, or of a report.json named directly.

    Raises BadRun where there is none, where it is not JSON, or where it is of another schema.
    """
    path = Path(run)
    path = path / "report.json" if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BadRun(
            f"No report at {path}. Name a run folder that holds report.json (`mneme audit --out DIR` makes one)."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadRun(f"Cannot read {path}: {error}. Expected the report.json that `mneme audit` wrote.") from error
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadRun(
            f"{path} is not a report of schema {SCHEMA}: {place}: {first['msg']} ({error.error_count()} problem(s) in all). "
            "Run the audit again, or read it with the version of mneme that wrote it."
        ) from error


def read_timings(run: str | Path) -> dict[str, float] | None:
    """Measured seconds by stage from the `timings.json` beside a report; None where there is none or it is unreadable.

    Times decorate the page and are not part of a result, so a broken file is treated as a missing one.
    """
    path = Path(run)
    path = (path if path.is_dir() else path.parent) / "timings.json"
    try:
        return TypeAdapter(dict[str, float]).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
