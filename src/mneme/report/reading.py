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
    if path.exists() and not path.is_file():  # a device, a pipe: it may never end
        raise BadRun(f"{path} is no file. Expected the report.json that `mneme audit` wrote.")
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
