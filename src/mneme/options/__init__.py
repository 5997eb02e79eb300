"""What decides a run, written once: frozen records, from which the command line, `run.json` and the stage key are made."""

from mneme.options.calling import taking
from mneme.options.fields import Option, Part, settle
from mneme.options.progress import Progress, Track, counted
from mneme.options.storing import command_line, deciding, restored, stored
from mneme.options.values import Machine, Training, loading

__all__ = [
    "Machine",
    "Option",
    "Part",
    "Progress",
    "Track",
    "Training",
    "command_line",
    "counted",
    "deciding",
    "loading",
    "restored",
    "settle",
    "stored",
    "taking",
]
