"""Reading a finished run back: nothing in it is believed that this user's mneme did not write."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mneme.errors import BadRun
from mneme.runs.ledger import is_own, own_secret, read_ledger, stages_name
from mneme.runs.stages import read_arrays, sealed_stage


@dataclass(frozen=True)
class FinishedRun:
    """A run folder whose `run.json` and results are proven to be this user's, unchanged."""

    folder: Path
    command: dict[str, Any]
    """`run.json`: what was asked, with `key`."""
    secret: bytes

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a stage. Raises BadRun where it is gone or not as it was written."""
        stages = self.folder / stages_name(self.command["key"])
        if not sealed_stage(stages, name, self.command["key"], self.secret):
            raise BadRun(
                f"The stage {name} of the run in {self.folder} was removed or changed. Run the same command again into the "
                "same folder."
            )
        return read_arrays(stages, name)


def read_finished(folder: Path, command: str, result: str) -> FinishedRun | None:
    """The finished run of `command` in `folder`, where run.json and the file `result` are this user's own and unchanged; None
    where they are somebody else's, were changed, or come from a mneme that kept no ledger."""
    secret = own_secret()
    ledger = read_ledger(folder, secret)
    if ledger is None or not ledger.finished or not all(is_own(folder, name, ledger) for name in ("run.json", result)):
        return None
    asked: dict[str, Any] = json.loads((folder / "run.json").read_text("utf-8"))
    return FinishedRun(folder, asked, secret) if asked.get("command") == command else None
