"""The command that a finished run was asked with, from its run.json: what a page shows as "Make it again"."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mneme.errors import BadRun
from mneme.options import command_line, restored

_LARGEST = 1_000_000
"""Bytes of a run.json that is read for this."""


def asked_again(folder: Path, command: str, record: type[Any]) -> str:
    """What to type for the run in `folder`, without its --out and --overwrite; empty where run.json is missing, is none of
    `command`, or was given objects of Python."""
    try:
        path = folder / "run.json"
        if path.stat().st_size > _LARGEST:
            return ""
        asked = json.loads(path.read_text("utf-8"))
        if asked.get("command") != command or not isinstance(asked.get("options"), dict):
            return ""
        options = restored(record, asked["options"])
    except (OSError, ValueError, AttributeError, RecursionError, BadRun):
        return ""
    whole = {one.name: one.default for one in fields(record) if one.name in ("out", "overwrite")}
    return command_line(command, replace(options, **whole))
