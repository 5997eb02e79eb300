"""Other libraries: loading them without the garbage collector going through them again and again, and keeping them quiet."""

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mneme.cli.saying import say

_SILENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers' too
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Loading bars and advice of other libraries, which say nothing of what was asked for. What a user has set stays."""


class _PlainLog(logging.Handler):
    """Warnings of mneme and of libraries as lines on stderr: names in them cannot drive the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        say(" ".join(record.getMessage().split()), err=True)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Inside, other libraries show no bars, and whatever they log or warn of is a plain line."""
    for name, value in _SILENT.items():
        os.environ.setdefault(name, value)
    handler = _PlainLog(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Around imports: nothing is collected meanwhile, and what they made is left out of later collections, the last one of
    all at the program's end included. Saves a second of the four that a command takes to start and stop."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
