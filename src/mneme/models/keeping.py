"""When a training keeps its state: by time, so that a kill costs about a minute whatever the size of the model."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mneme.errors import BadRun, one_line

LOST_SECONDS = 60.0
"""No more work than that is lost at a kill, except where a single step takes longer."""


class Keeping:
    """Asked after every step whether the state has to be kept before the next one."""

    def __init__(self) -> None:
        """The clock starts now."""
        self._kept = self._last = time.monotonic()
        self._step = self._writing = 0.0

    def is_due(self) -> bool:
        """Whether a kill at the end of the next step, or while the state is written after it, would cost more than
        `LOST_SECONDS`; steps and writing are taken to last as long as the longest since the state was kept last."""
        now = time.monotonic()
        self._step, self._last = max(self._step, now - self._last), now
        return now - self._kept + self._step + self._writing > LOST_SECONDS

    def kept(self) -> None:
        """The state has been written, since `is_due` was asked."""
        now = time.monotonic()
        self._writing = now - self._last
        self._kept = self._last = now
        self._step = 0.0


def write_state(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """The state of a training, whole or as it was before. Raises BadRun where the disk does not take it."""
    draft = path.with_name(f".mneme-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), draft)
        os.replace(draft, path)
    except (OSError, SafetensorError) as error:
        draft.unlink(missing_ok=True)
        raise BadRun(
            f"Cannot keep the state of training in {path} ({one_line(error)}). Free some space or give another folder with "
            "--out."
        ) from error
